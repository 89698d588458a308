"""
fairscale 0.4.6, the only one that AllenNLP works with, uses decorators that torch 2.4 deprecated
(fairscale/experimental/nn/offload.py:19 and 30). Each process that imports AllenNLP prints these
warnings, about which a user can do nothing.
"""

import warnings
from contextlib import contextmanager
from types import ModuleType
from typing import Iterator


@contextmanager
def _ignore_deprecations(module: ModuleType) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.cuda.amp", FutureWarning)
        yield


HOOKS = {"fairscale.experimental.nn.offload": _ignore_deprecations}
