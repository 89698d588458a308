"""
transformers 4.50 removed its `AdamW`, which allennlp/training/optimizers.py:456 names as a base
class and so needs at import. (Its optimizer "huggingface_adamw" cannot be made with torch's, but
prediction makes no optimizer.)

The class of the lazy module is patched and not the module `transformers`: that one is imported a
second time by transformers 4.5x and would lose a plain attribute.
"""

from contextlib import contextmanager
from types import ModuleType
from typing import Any, Iterator


@contextmanager
def _provide_adamw(import_utils: ModuleType) -> Iterator[None]:
    yield
    lazy_module = import_utils._LazyModule
    original = lazy_module.__getattr__

    def getattr_(self: ModuleType, name: str) -> Any:
        try:
            return original(self, name)
        except AttributeError:
            if name != "AdamW" or self.__name__ != "transformers":
                raise
        import torch

        return torch.optim.AdamW

    lazy_module.__getattr__ = getattr_


HOOKS = {"transformers.utils.import_utils": _provide_adamw}
