"""
Loads an archive as `allennlp predict` does, but takes nothing out of it that leaves its folder, and
no weights that could run code.

Trust: its configuration still names the classes to build, and with what. Who can change an archive
can run code where it is loaded. Load only archives that you trust.
"""

import json
import os
import pickle
import tarfile
import zlib
from typing import Any, Dict, Optional, Union

from allennlp.common.checks import ConfigurationError
from allennlp.common.params import Params
from allennlp.models.archival import CONFIG_NAME, Archive, get_weights_path, load_archive
from allennlp.predictors.predictor import Predictor

from allennlp_parallel_predict.common.errors import explain, user_error_context
from allennlp_parallel_predict.models.extraction import unpacked
from allennlp_parallel_predict.models.weights import check_weights, trusted

__all__ = ["load_predictor", "parse_predictor_args", "unpacked"]

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
        arguments: Dict[str, Any] = json.loads(text) if text.strip() else {}
        return arguments


def _load(
    archive_file: str,
    cuda_device: int,
    overrides: Union[str, Dict[str, Any]],
    weights_file: Optional[str],
) -> Archive:
    with unpacked(archive_file) as folder:
        if not os.path.exists(os.path.join(folder, CONFIG_NAME)):
            raise FileNotFoundError(f"there is no {CONFIG_NAME} in it")
        weights = weights_file or str(get_weights_path(folder))
        if not weights_file and not os.path.exists(weights):
            raise FileNotFoundError("there are no weights in it")
        check_weights(weights)
        try:
            with trusted():
                return load_archive(
                    folder, cuda_device=cuda_device, overrides=overrides, weights_file=weights_file
                )
        except (AttributeError, TypeError) as error:
            config = Params.from_file(os.path.join(folder, CONFIG_NAME), overrides)
            kinds: Dict[str, Any] = {"dataset_reader": Params, "model": (Params, str)}
            for name, kind in kinds.items():
                if not isinstance(config.get(name), kind):
                    found = f"{name} must be an object with a type, but it is {config.get(name)!r}"
                    explain(error, f"cannot load the archive {archive_file}: {found}")
            raise
