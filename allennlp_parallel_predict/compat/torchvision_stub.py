"""
AllenNLP imports torchvision even where it predicts from text (allennlp/data/image_loader.py:6,
modules/vision/). torchvision has to match torch's build exactly: the package index's does not load
beside a CPU build ("operator torchvision::nms does not exist"), and for many builds there is none.

Where it is missing or does not load, these modules get a stand-in. Nothing else ever sees it:
transformers, datasets and torch look for torchvision themselves and have to be told the truth.
"""

import importlib
import sys
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Iterator, List

NAMES = ("torchvision", "torchvision.ops", "torchvision.ops.boxes")


class _MissingModule(ModuleType):
    __path__: List[str] = []

    def __getattr__(self, name: str) -> Any:
        # hasattr() is how others find out what there is.
        raise AttributeError(
            f"torchvision is not installed or does not load ({self.__name__}.{name})"
        )


def _loads() -> bool:
    try:
        importlib.import_module("torchvision")
        return True
    except Exception:  # RuntimeError where it does not match torch
        return False


@contextmanager
def _stand_in_for_torchvision(module: ModuleType) -> Iterator[None]:
    if _loads():
        yield
        return
    _forget_torchvision()
    modules = [_MissingModule(name) for name in NAMES]
    vars(modules[0])["ops"], vars(modules[1])["boxes"] = modules[1:]
    sys.modules.update(zip(NAMES, modules))
    try:
        yield
    finally:
        _forget_torchvision()


def _forget_torchvision() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]


HOOKS = dict.fromkeys(
    [
        "allennlp.data.image_loader",
        "allennlp.modules.vision.grid_embedder",
        "allennlp.modules.vision.region_detector",
    ],
    _stand_in_for_torchvision,
)
