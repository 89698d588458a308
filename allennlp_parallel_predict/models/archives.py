"""
Loads an archive as `allennlp predict` does, but takes nothing out of it that leaves its folder.

Trust: the weights in an archive are a pickle, and its configuration names the classes to build. Who
can change an archive can run code where it is loaded. Load only archives that you trust.
"""

import json
import os
import pickle
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional, Union

from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path
from allennlp.models.archival import CONFIG_NAME, Archive, get_weights_path, load_archive
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.errors import explain, user_error_context
from allennlp_parallel_predict.common.recorder import in_stage, stage
from allennlp_parallel_predict.common.stages import EXTRACTING

try:
    from isal import igzip
except ImportError:  # there is no wheel of it for every machine
    igzip = None  # type: ignore[assignment]


class ArchiveError(ConfigurationError):
    """An archive that is damaged, incomplete, or would write outside its folder."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        explain(self, message)


_BLAMED_ON_THE_ARCHIVE = (
    OSError,
    EOFError,
    tarfile.TarError,
    zlib.error,
    pickle.UnpicklingError,
    UnicodeDecodeError,
    ConfigurationError,
    RuntimeError,
)


def load_predictor(
    archive_file: str,
    predictor_name: Optional[str] = None,
    cuda_device: int = -1,
    dataset_reader_to_load: str = "validation",
    overrides: Union[str, Dict[str, Any]] = "",
    weights_file: Optional[str] = None,
    predictor_args: Optional[Dict[str, Any]] = None,
    frozen: bool = True,
) -> Predictor:
    """
    Loads a predictor from an archive.

    # Parameters

    archive_file : `str`
        A path or URL of an archive, or a folder with the same content.

    The others are those of `Predictor.from_path` and `load_archive`.

    # Raises

    `Exception`
        What `load_archive` raises; with an explanation if the archive is to blame.
    """
    what = f"cannot load the archive {archive_file}"
    with user_error_context(what, *_BLAMED_ON_THE_ARCHIVE):
        archive = _load(archive_file, cuda_device, overrides, weights_file)
        return Predictor.from_archive(
            archive,
            predictor_name,
            dataset_reader_to_load=dataset_reader_to_load,
            frozen=frozen,
            extra_args=predictor_args or {},
        )


def parse_predictor_args(text: str) -> Dict[str, Any]:
    """`--predictor-args`, as `allennlp predict` reads them."""
    with user_error_context("--predictor-args is not JSON", ValueError):
        return json.loads(text) if text.strip() else {}


def _load(
    archive_file: str,
    cuda_device: int,
    overrides: Union[str, Dict[str, Any]],
    weights_file: Optional[str],
) -> Archive:
    with unpacked(archive_file) as folder:
        if not os.path.exists(os.path.join(folder, CONFIG_NAME)):
            raise FileNotFoundError(f"there is no {CONFIG_NAME} in it")
        if not weights_file and not os.path.exists(get_weights_path(folder)):
            raise FileNotFoundError("there are no weights in it")
        return load_archive(
            folder, cuda_device=cuda_device, overrides=overrides, weights_file=weights_file
        )


@contextmanager
def unpacked(archive_file: str) -> Iterator[str]:
    """The folder with an archive's content; a temporary one is removed afterwards."""
    with stage(EXTRACTING):
        path = cached_path(archive_file)
    if os.path.isdir(path):
        yield path
        return
    with _temporary_folder() as folder:
        yield _extracted(path, folder)


@in_stage(EXTRACTING)
def _extracted(path: str, folder: str) -> str:
    """The folder, in `folder`, that an archive has been extracted to."""
    if igzip is not None:
        target = os.path.join(folder, "archive")
        try:
            with igzip.open(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
                _extract(archive, target)
            return target
        except Exception:  # Python's own error is raised below, if it is one to gzip, too
            shutil.rmtree(target, ignore_errors=True)
    target = os.path.join(folder, "archive-by-gzip")
    with tarfile.open(path, "r:gz") as archive:
        _extract(archive, target)
    return target


def _extract(archive: tarfile.TarFile, folder: str) -> None:
    os.mkdir(folder)
    for member in archive:
        _check_member(member, folder)
        archive.extract(member, folder, set_attrs=False)
    while archive.fileobj.read(1 << 20):  # type: ignore[union-attr]
        pass  # to its end, where a checksum says whether it is whole


@contextmanager
def _temporary_folder() -> Iterator[str]:
    """A folder that goes even if this process is killed: a shell sees that, and removes it."""
    folder = tempfile.mkdtemp()
    remover = subprocess.Popen(
        ["sh", "-c", 'read -r _; rm -rf -- "$0"', folder],
        stdin=subprocess.PIPE,
        start_new_session=True,  # out of reach of Ctrl-C
    )
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        remover.kill()
        remover.communicate()


def _check_member(member: tarfile.TarInfo, folder: str) -> None:
    root = os.path.realpath(folder)
    target = os.path.join(root, member.name)
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise ArchiveError(f"it holds {member.name!r}, which is neither a file nor a folder")
    places = [target]
    if member.issym():
        places.append(os.path.join(os.path.dirname(target), member.linkname))
    elif member.islnk():
        places.append(os.path.join(root, member.linkname))
    for place in places:
        if os.path.commonpath([root, os.path.realpath(place)]) != root:
            raise ArchiveError(f"it holds {member.name!r}, which would leave its folder")
