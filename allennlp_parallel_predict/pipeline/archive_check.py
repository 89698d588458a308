"""What can be known of an archive before it is loaded."""

import contextlib
import os
import re
import tarfile
from typing import Optional

from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path
from allennlp.models.archival import CONFIG_NAME
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.errors import user_error_context

_NAMED_IN_FULL = re.compile(r"""["']?type["']?\s*:\s*["'][^"']*\.""")
"""A class like `library.models.Tagger`: its import may register a predictor."""


def check_archive(archive_file: str, predictor: Optional[str], overrides: str) -> None:
    """Whether there is an archive, and the predictor that is asked for."""
    with user_error_context(f"cannot load the archive {archive_file}", Exception):
        path = cached_path(archive_file)
    if predictor is None or predictor in Predictor.list_available():
        return
    if not _NAMED_IN_FULL.search(overrides + _config_of(path)):
        with user_error_context("--predictor", ConfigurationError):
            Predictor.by_name(predictor)


def _config_of(archive: str) -> str:
    """The configuration of an archive; of one that is damaged, nothing: loading it will say so."""
    with contextlib.suppress(OSError, EOFError, tarfile.TarError, KeyError, UnicodeDecodeError):
        if os.path.isdir(archive):
            with open(os.path.join(archive, CONFIG_NAME), encoding="utf-8") as file:
                return file.read()
        with tarfile.open(archive) as tar:
            content = tar.extractfile(CONFIG_NAME)
            return content.read().decode("utf-8") if content is not None else ""
    return "{type: 'not.known'}"
