"""Text files that may be compressed: by their suffix, or else by how they begin."""

import bz2
import gzip
import io
import lzma
import zlib
from typing import IO, Any, Callable, Dict, Optional, TextIO, cast

from allennlp.common.file_utils import open_compressed

from allennlp_parallel_predict.common.extras import import_extra

_BY_SUFFIX = (".gz", ".bz2", ".xz")
"""What AllenNLP knows, in its way."""
_BZ2_BLOCK = b"1AY&SY"
_BLOCK = 1 << 17
READ_ERRORS = (OSError, EOFError, lzma.LZMAError, zlib.error)
"""What reading a file raises that is missing, cut off or damaged."""


def compression_of(path: str) -> Optional[Callable[..., Any]]:
    """What opens a local file that is compressed; `None` for one that is not."""
    if path.endswith(_BY_SUFFIX):
        return open_compressed
    with open(path, "rb") as file:
        start = file.read(10)
    # A file from a URL has no suffix. No text begins like this: "BZh" alone could be one.
    if start.startswith(b"BZh") and start[4:] == _BZ2_BLOCK:
        return bz2.open
    openers: Dict[bytes, Callable[..., Any]] = {
        b"\x1f\x8b": gzip.open,
        b"\xfd7zXZ\0": lzma.open,
        b"\x28\xb5\x2f\xfd": open_zstd,
    }
    for magic, opener in openers.items():
        if start.startswith(magic):
            return opener
    return None


def open_text(path: str, newline: Optional[str] = None) -> TextIO:
    """
    Opens a local file as UTF-8; a surrogate stands for a byte that cannot be decoded.

    # Raises

    `SettingsError`
        If it is compressed with Zstandard and there is no library for it.
    """
    opener = compression_of(path) or open
    return cast(
        TextIO,
        opener(path, mode="rt", encoding="UTF-8", errors="surrogateescape", newline=newline),
    )


def open_zstd(path: str, mode: str, **text: Any) -> TextIO:
    """Opens a file of Zstandard frames as text."""
    return io.TextIOWrapper(io.BufferedReader(_ZstdReader(open(path, "rb")), _BLOCK), **text)


class _ZstdReader(io.RawIOBase):
    """
    The content of all frames of a file, one after the other. The library's own reader ends without
    an error where a file is cut off.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file  # first, as `close` needs it also where the library is missing
        zstandard = import_extra("zstandard", "zstd", f"reading {file.name}")
        self._new_frame = zstandard.ZstdDecompressor().decompressobj
        self._error = zstandard.ZstdError
        self._frame: Any = None
        self._rest = b""
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._rest or self._file.read(_BLOCK)
            self._rest = b""
            if not data:
                if self._frame is not None:
                    raise EOFError("the file is cut off: its last Zstandard frame has no end")
                return 0
            self._decompress(data)
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _decompress(self, data: bytes) -> None:
        self._frame = self._frame or self._new_frame()
        try:
            self._ready = self._frame.decompress(data)
        except self._error as error:
            raise OSError(f"the file is damaged: {error}") from error
        if self._frame.eof:
            self._rest, self._frame = self._frame.unused_data, None

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
