"""
`torch.device(0)` is `cuda:0` where there is a GPU; with a build for CPUs, torch 2 made it an error:
"Cannot access accelerator device when none is available." AllenNLP makes devices in this way
(common/util.py:484) before `check_for_gpu` (common/checks.py:113) can say that there is no such
GPU, and what to do.
"""

from contextlib import contextmanager
from typing import Any, Iterator


@contextmanager
def _name_the_kind(util: Any) -> Iterator[None]:
    yield

    def int_to_device(device: Any) -> Any:
        if isinstance(device, util.torch.device):
            return device
        return util.torch.device("cpu") if device < 0 else util.torch.device("cuda", device)

    util.int_to_device = int_to_device


HOOKS = {"allennlp.common.util": _name_the_kind}
