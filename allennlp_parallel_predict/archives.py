"""
Loads an archive as `allennlp predict` does, but takes nothing out of it that leaves its folder.

Trust: the weights in an archive are a pickle, and its configuration names the classes to build. Who
can change an archive can run code where it is loaded. Load only archives that you trust.
"""

import json
import os
import shutil
import tarfile
import tempfile
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional

from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path
from allennlp.models.archival import CONFIG_NAME, Archive, get_weights_path, load_archive
from allennlp.predictors import Predictor

from allennlp_parallel_predict.errors import explain, explained


class ArchiveError(ConfigurationError):
    """An archive that is damaged, incomplete, or would write outside its folder."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        explain(self, message)


def load_predictor(
    archive_file: str,
    predictor_name: Optional[str] = None,
    cuda_device: int = -1,
    dataset_reader_to_load: str = "validation",
    overrides: str = "",
    weights_file: Optional[str] = None,
    predictor_args: Optional[Dict[str, Any]] = None,
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
    with explained(what, OSError, EOFError, tarfile.TarError, ConfigurationError, RuntimeError):
        archive = _load(archive_file, cuda_device, overrides, weights_file)
        return Predictor.from_archive(
            archive,
            predictor_name,
            dataset_reader_to_load=dataset_reader_to_load,
            extra_args=predictor_args or {},
        )


def parse_predictor_args(text: str) -> Dict[str, Any]:
    """`--predictor-args`, as `allennlp predict` reads them."""
    with explained("--predictor-args is not JSON", ValueError):
        return json.loads(text) if text.strip() else {}


def _load(
    archive_file: str, cuda_device: int, overrides: str, weights_file: Optional[str]
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
    path = cached_path(archive_file)
    if os.path.isdir(path):
        yield path
        return
    folder = tempfile.mkdtemp()
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                _check_member(member, folder)
                archive.extract(member, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
