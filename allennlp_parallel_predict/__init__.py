"""
`allennlp predict` for people with a lot of input.

Importing this package adapts AllenNLP to the installed libraries, and registers the subcommands and
classes as soon as AllenNLP's command line is imported: that is how AllenNLP finds plugins. It
imports neither AllenNLP nor torch itself, so `allennlp-parallel-predict doctor` runs without them.
"""

import importlib
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, Iterator, List

from allennlp_parallel_predict import compat
from allennlp_parallel_predict.compat import import_hooks

if TYPE_CHECKING:
    from allennlp_parallel_predict.exports import *  # noqa: F401, F403


_EXPORTS = f"{__name__}.exports"


def __getattr__(name: str) -> Any:
    # Exported names are classes. Python asks for modules here too, before it imports them.
    if name[:1].isupper() or name == "__all__":
        return getattr(importlib.import_module(_EXPORTS), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> List[str]:
    return sorted({*globals(), *__getattr__("__all__")})


@contextmanager
def _registered(commands: ModuleType) -> Iterator[None]:
    yield
    importlib.import_module(_EXPORTS)


compat.install()
import_hooks.register("allennlp.commands", _registered)
