"""Output files that are no plain lines: compressed in parts that end where a run can go on, or
converted at its end (`parquet_output.py`)."""

import os
import zlib
from typing import Any, Callable, Optional

from allennlp_parallel_predict.common.extras import import_extra
from allennlp_parallel_predict.data.files import OutputFile
from allennlp_parallel_predict.data.parquet import import_pyarrow
from allennlp_parallel_predict.data.parquet_output import ConvertedFile

LINES, GZ, ZST, PARQUET = "lines", "gz", "zst", "parquet"
AUTO = "auto"
OUTPUT_FORMATS = (LINES, GZ, ZST, PARQUET, AUTO)
_GZIP_HEADER = 16 + zlib.MAX_WBITS


def output_format(name: Optional[str], output_file: Optional[str]) -> str:
    """
    The format of an output. A suffix alone changes nothing, as `allennlp predict` writes lines
    into files of any name.
    """
    if name == AUTO:
        suffix = os.path.splitext(output_file or "")[1][1:]
        return suffix if suffix in (GZ, ZST, PARQUET) else LINES
    return name or LINES


def output_class(format: str) -> Callable[[str], OutputFile]:
    """
    What opens an output of this format.

    # Raises

    `SettingsError`
        If it needs a library that is missing.
    """
    if format == GZ:
        return lambda path: CompressedFile(path, lambda: zlib.compressobj(wbits=_GZIP_HEADER))
    if format == ZST:
        zstandard = import_extra("zstandard", "zstd", "an output in the format zst")
        return lambda path: CompressedFile(path, zstandard.ZstdCompressor().compressobj)
    if format == PARQUET:
        pyarrow = import_pyarrow("an output in the format parquet")
        return lambda path: ConvertedFile(path, pyarrow)
    return OutputFile


class CompressedFile(OutputFile):
    """
    A file of gzip members or Zstandard frames, which may follow each other: each `end_part` ends
    one, so that the file can be cut off there and stays valid.

    # Parameters

    path : `str`
        The file.
    compressor : `Callable[[], Any]`
        Makes the compressor of one part, with the methods `compress` and `flush`.
    """

    is_divisible = False

    def __init__(self, path: str, compressor: Callable[[], Any]) -> None:
        super().__init__(path)
        self._new_compressor = compressor
        self._compressor: Any = None

    def write(self, data: bytes) -> None:
        if self._compressor is None:
            self._compressor = self._new_compressor()
        super().write(self._compressor.compress(data))

    def end_part(self) -> None:
        if self._compressor is None:
            if self.size:
                return
            self._compressor = self._new_compressor()  # a file without a part is not valid
        compressor, self._compressor = self._compressor, None
        super().write(compressor.flush())
