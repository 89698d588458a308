"""Libraries that only some features need."""

from importlib import import_module
from typing import Any

from allennlp_parallel_predict.common.errors import SettingsError


def import_extra(module: str, extra: str, what: str) -> Any:
    """
    Imports a library of an extra.

    # Raises

    `SettingsError`
        If it is not installed; the message says what needs it and how to install it.
    """
    try:
        return import_module(module)
    except ImportError:
        raise SettingsError(
            f"{what} needs {module}: pip install 'allennlp-parallel-predict[{extra}]'"
        ) from None
