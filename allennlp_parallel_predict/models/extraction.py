"""Extracts an archive into a temporary folder, and nothing of it anywhere else."""

import gzip
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List

from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path

from allennlp_parallel_predict.common.errors import ArchiveError
from allennlp_parallel_predict.common.recorder import in_stage
from allennlp_parallel_predict.common.stages import EXTRACTING

MAX_BYTES = "ALLENNLP_PARALLEL_PREDICT_MAX_ARCHIVE_BYTES"
_DEFAULT_MAX_BYTES = 64 << 30
_MAX_HEADER = 1 << 20
_MAX_NAME, _MAX_PATH = 255, 4096
# The standard library's own check, in the releases that have it (PEP 706). Ours is as strict.
_FILTER: Dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


@contextmanager
def unpacked(archive_file: str) -> Iterator[str]:
    """The folder with an archive's content; a temporary one is removed afterwards."""
    path = cached_path(archive_file)
    if os.path.isdir(path):
        yield str(path)
        return
    with _temporary_folder() as folder:
        try:
            _extract(str(path), folder)
        except (ValueError, OverflowError, RecursionError, MemoryError) as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ArchiveError(f"it is damaged: {error or type(error).__name__}") from error
        yield folder


class _Gzip(gzip.GzipFile):
    """`tarfile` reads a header in one piece, however long it says that it is."""

    def read(self, size: Any = -1) -> bytes:
        if size is None or not 0 <= size <= _MAX_HEADER:
            raise ArchiveError(f"it holds a header of {size:,} bytes")
        return super().read(size)


@in_stage(EXTRACTING)
def _extract(path: str, folder: str) -> None:
    limit = max_bytes()
    size = 0
    with _Gzip(path) as gzip_file:
        file: Any = gzip_file
        try:
            archive = tarfile.open(fileobj=file, mode="r:")
        except OSError as error:  # as `tarfile.open` does with "r:gz", and so `predict`
            raise tarfile.ReadError("not a gzip file") from error
        for member in archive:
            size += 512 + max(member.size, 0)  # with its header
            if size > limit:
                raise ArchiveError(
                    f"it is larger than {limit:,} bytes when unpacked: if that is right, set the "
                    f"environment variable {MAX_BYTES} to more"
                )
            _check_member(member, folder)
            archive.extract(member, folder, set_attrs=False, **_FILTER)
        # To its end, where a checksum says whether it is whole.
        while file.read(_MAX_HEADER):
            size += _MAX_HEADER
            if size > limit:
                raise ArchiveError(f"after its last file there are more than {limit:,} bytes")


def max_bytes() -> int:
    """
    The unpacked size that an archive may have, from the environment.

    # Raises

    `ArchiveError`
        If the variable is no number.
    """
    text = os.environ.get(MAX_BYTES, str(_DEFAULT_MAX_BYTES))
    if not text.isdigit():
        raise ArchiveError(f"{MAX_BYTES} must be a number of bytes, but it is {text!r}")
    return int(text)


def _check_member(member: tarfile.TarInfo, root: str) -> None:
    name = member.name if len(member.name) <= 100 else f"{member.name[:100]}..."
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise ArchiveError(f"it holds {name!r}, which is neither a file nor a folder")
    for path in (member.name, member.linkname):
        is_long = len(path) > _MAX_PATH or any(len(p) > _MAX_NAME for p in path.split("/"))
        if is_long or "\0" in path:
            raise ArchiveError(f"it holds {name!r}, whose name or link no file can have")
    is_inside = _is_inside(member.name, 0) and not _passes_a_link(root, member.name)
    if member.issym():
        # From a folder that is really there, up no further than to the root, and then down: where
        # it leads to other links, the same is true of them.
        depth = len(_parts(member.name)) - 1
        is_inside = is_inside and _is_inside(member.linkname, depth)
    elif member.islnk():
        # Python would put a copy of a link that leads nowhere in the place of a link to it.
        is_inside = is_inside and _is_inside(member.linkname, 0)
        is_inside = is_inside and _is_file(root, member.linkname)
    if not is_inside:
        raise ArchiveError(f"it holds {name!r}, which would leave its folder")


def _parts(path: str) -> List[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _is_inside(path: str, depth: int) -> bool:
    """Whether a path goes up no further than `depth`, and not up again once it has gone down."""
    parts = _parts(path)
    ups = next((n for n, part in enumerate(parts) if part != ".."), len(parts))
    return not path.startswith("/") and ups <= depth and ".." not in parts[ups:]


def _passes_a_link(root: str, path: str) -> bool:
    parts = _parts(path)[:-1]
    places = (os.path.join(root, *parts[: n + 1]) for n in range(len(parts)))
    return any(map(os.path.islink, places))


def _is_file(root: str, path: str) -> bool:
    place = os.path.join(root, path)
    is_there = not _passes_a_link(root, path) and os.path.lexists(place)
    return is_there and stat.S_ISREG(os.lstat(place).st_mode)


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """A folder that goes even if this process is killed: a shell sees that, and removes it."""
    folder = tempfile.mkdtemp()
    remover = None
    try:
        try:
            remover = subprocess.Popen(
                ["sh", "-c", 'read -r _; rm -rf -- "$0"', folder],
                stdin=subprocess.PIPE,
                start_new_session=True,  # out of reach of Ctrl-C
            )
        except OSError:
            pass  # no process can be started; the folder goes at the end all the same
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if remover is not None:
            remover.kill()
            remover.communicate()
