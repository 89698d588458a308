"""
Archives hold buffers, such as `position_ids`, that transformers no longer keeps in state dicts
(since 4.31, huggingface/transformers#24505). `allennlp.models.Model._load` (model.py:379) takes
them for an error: "Unexpected key(s) in state_dict". Their values are constants, which the modules
set themselves, so they are left out where the model has a buffer of that name that is not loaded.
"""

import functools
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Dict, Iterator


@contextmanager
def _ignore_constant_buffers(modeling_utils: ModuleType) -> Iterator[None]:
    yield
    original = modeling_utils.PreTrainedModel._load_from_state_dict

    @functools.wraps(original)
    def load(self: Any, state_dict: Dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name, module in self.named_modules():
            for buffer in module._non_persistent_buffers_set:
                state_dict.pop(f"{prefix}{name}.{buffer}" if name else prefix + buffer, None)
        original(self, state_dict, prefix, *args, **kwargs)

    modeling_utils.PreTrainedModel._load_from_state_dict = load


HOOKS = {"transformers.modeling_utils": _ignore_constant_buffers}
