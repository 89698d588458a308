"""The files that a run writes: refused before they destroy others, and written so that it is always
known how many bytes the operating system has."""

import contextlib
import errno
import fcntl
import os
import stat
import struct
import sys
import zlib
from typing import Callable, Dict, Iterable, Iterator, Optional, Tuple

from allennlp_parallel_predict.common.errors import (
    OutputChanged,
    OutputClosed,
    SettingsError,
    explain,
)

_BUFFER = 1 << 16
_BLOCK = 1 << 20


def check_files(written: Dict[str, str], read: Dict[str, str]) -> None:
    """
    Checks the paths of a run before any of them is opened.

    # Parameters

    written : `Dict[str, str]`
        The files that the run writes, by a name that a user understands.
    read : `Dict[str, str]`
        The files and folders that it reads.

    # Raises

    `SettingsError`
        If a file would be overwritten that is read, or written for something else.
    `OSError`
        If one cannot be written: it is a folder, or its folder does not exist.
    """
    names = {}
    for name, path in read.items():
        names.update(dict.fromkeys(_identities(path), name))
    for name, path in written.items():
        _check_writable(path)
        for identity in _identities(path):
            other = names.setdefault(identity, name)
            if other != name:
                raise SettingsError(
                    f"{name} {path} is the same file as {other}, which would be lost: "
                    "give the one that is written another name"
                )


def _identities(path: str) -> Iterator[object]:
    """What is the same for two paths of one file; nothing for a device or a pipe."""
    if path == "-":
        with contextlib.suppress(AttributeError, OSError, ValueError):  # replaced by a test
            status = os.fstat(sys.stdin.fileno())
            if stat.S_ISREG(status.st_mode):
                yield status.st_dev, status.st_ino
    elif os.path.isfile(path):
        status = os.stat(path)
        yield status.st_dev, status.st_ino
    elif os.path.isdir(path):
        for entry in os.scandir(path):
            if entry.is_file():
                yield from _identities(entry.path)
    elif not os.path.exists(path):
        yield os.path.realpath(path)


def _check_writable(path: str) -> None:
    folder = os.path.dirname(path) or "."
    number, why = 0, ""
    if os.path.isdir(path):
        number, why = errno.EISDIR, "it is a folder"
    elif not os.path.isdir(folder):
        number, why = errno.ENOENT, f"there is no folder {folder}"
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        which = "it" if os.path.exists(path) else f"the folder {folder}"
        number, why = errno.EACCES, f"you have no permission to write to {which}"
    if number:
        raise explain(OSError(number, os.strerror(number), path), f"cannot write {path}: {why}")


def is_regular(path: str) -> bool:
    """Whether a path is, or would become, a file whose bytes stay."""
    return not os.path.exists(path) or os.path.isfile(path)


def sync_folder(path: str) -> None:
    """Brings the creations, renamings and removals in the folder of a file to the disk."""
    descriptor = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not every file system can
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Says which file could not be written."""
    try:
        yield
    except BrokenPipeError as error:
        raise OutputClosed() from error
    except OSError as error:
        raise explain(error, f"cannot write {path}: {error.strerror}")


class OutputFile:
    """
    A file that is written from front to back through a buffer of its own. Python's would not say
    which of its bytes reached the operating system when a write fails or is interrupted.

    An existing file is opened at once, which keeps other runs from it, but stays as it is until
    `begin`.

    # Parameters

    path : `str`
        The file, or a device or pipe.

    # Raises

    `SettingsError`
        If another run writes it.
    """

    is_divisible = True
    """Whether the file can be cut off anywhere, and not only where a part ends."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_regular = is_regular(path)
        self.size = 0
        """The bytes of the file, those included that are still in the buffer."""
        self.checksum = 0
        """The CRC-32 of them all."""
        self._buffer = bytearray()
        self._descriptor: Optional[int] = None
        self._sync_error: Optional[OSError] = None
        if self.is_regular and os.path.exists(path):
            self._open(os.O_RDWR)

    def resume_at(self, size: int, checksum: int) -> bool:
        """Goes on after `size` bytes; returns whether they are those with this checksum."""
        found, left = 0, size
        while left and self._descriptor is not None:
            block = os.pread(self._descriptor, min(left, _BLOCK), size - left)
            if not block:
                break
            found, left = zlib.crc32(block, found), left - len(block)
        self.size, self.checksum = size, checksum
        return left == 0 and found == checksum

    def begin(self) -> None:
        """Makes the file, or cuts it off where writing goes on."""
        if self._descriptor is None:
            self._open(os.O_RDWR | os.O_CREAT if self.is_regular else os.O_WRONLY)
        if self.is_regular:
            with writing(self.path):
                assert self._descriptor is not None
                os.ftruncate(self._descriptor, self.size)
                os.lseek(self._descriptor, self.size, os.SEEK_SET)
                sync_folder(self.path)

    def write(self, data: bytes) -> None:
        """
        # Raises

        `OSError`
            If the disk is full. What did not fit stays in the buffer.
        `OutputClosed`
            If the reader of a pipe is gone.
        """
        self._buffer += data
        self.size += len(data)
        self.checksum = zlib.crc32(data, self.checksum)
        if len(self._buffer) >= _BUFFER:
            self.flush()

    def end_part(self) -> None:
        """Makes everything before this point usable without what comes after it."""

    def flush(self) -> None:
        """Hands everything to the operating system."""
        assert self._descriptor is not None, "begin() comes before flush()"
        with writing(self.path):
            while self._buffer:
                del self._buffer[: os.write(self._descriptor, self._buffer)]

    def sync(self) -> None:
        """
        Brings everything to the disk.

        # Raises

        `OSError`
            If that failed, or failed before: the system reports an error once and may have dropped
            the bytes, so a later success says nothing about them.
        `OutputChanged`
            If somebody else has written to the file.
        """
        self.flush()
        if not self.is_regular:
            return
        assert self._descriptor is not None
        with writing(self.path):
            if self._sync_error is not None:
                raise self._sync_error
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._sync_error = error
                raise
            found = os.fstat(self._descriptor).st_size
        if found != self.size:
            raise OutputChanged(
                f"{self.path} has {found:,} bytes where this run has written {self.size:,}: "
                "something else writes to it"
            )

    def close(self) -> None:
        """Writes the rest; the file is closed whether that succeeds or not."""
        descriptor = self._descriptor
        if descriptor is None:
            return
        try:
            if self._buffer:
                self.flush()
        finally:
            self._descriptor = None
            with writing(self.path):
                os.close(descriptor)

    def _open(self, flags: int) -> None:
        with writing(self.path):
            self._descriptor = os.open(self.path, flags, 0o666)
        if not self.is_regular:
            return
        try:
            # Of this process alone: workers that outlive it by a moment do not hold it.
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return  # a file system without locks
            holder = _lock_holder(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
            raise SettingsError(
                f"{self.path} is being written by another run (process {holder}): wait for it, "
                "end it, or give this one another file"
            )


def _lock_holder(descriptor: int) -> str:
    """The process that holds the lock of a file, where `struct flock` is Linux's."""
    if sys.platform != "linux":
        return "unknown"
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0)
    return str(struct.unpack("hhqqi4x", fcntl.fcntl(descriptor, fcntl.F_GETLK, wanted))[4])


def open_outputs(
    output: Optional[str],
    errors: Optional[str],
    open_output: Callable[[str], OutputFile] = OutputFile,
) -> Tuple[Optional[OutputFile], Optional[OutputFile]]:
    """Opens the files that are given, or none at all."""
    opened = open_output(output) if output else None
    try:
        return opened, OutputFile(errors) if errors else None
    except BaseException:
        if opened is not None:
            opened.close()
        raise


def close_all(files: Iterable[OutputFile]) -> None:
    """Closes all, also if that of one fails."""
    with contextlib.ExitStack() as stack:
        for file in files:
            stack.callback(file.close)
