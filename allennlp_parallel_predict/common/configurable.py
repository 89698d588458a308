"""Objects of the settings that know the values that they were built from."""

import contextlib
import inspect
from typing import Any, Dict, Type, TypeVar

from allennlp.common import Registrable

C = TypeVar("C", bound="Configurable")


class Configurable(Registrable):
    """
    The base of what settings describe: `Executor` and `Batching`, and so what users register.

    # Examples

    ```python
    InOrderBatching(8).settings()
    # {"type": "in_order", "batch_size": 8}
    ```
    """

    _arguments: Dict[str, Any] = {}

    def __new__(cls: Type[C], *args: Any, **kwargs: Any) -> C:
        made = super().__new__(cls)
        with contextlib.suppress(TypeError):  # `__init__` is about to say what is wrong
            bound = inspect.signature(cls.__init__).bind(made, *args, **kwargs)
            bound.apply_defaults()
            made._arguments = dict(list(bound.arguments.items())[1:])
        return made

    def settings(self) -> Dict[str, Any]:
        """The registered name as `type`, and the arguments of `__init__` with their defaults."""
        bases = [base for base in type(self).__mro__ if base in Registrable._registry]
        names = {
            subclass: name
            for base in bases
            for name, (subclass, _) in Registrable._registry[base].items()
        }
        return {"type": names.get(type(self), type(self).__name__), **self._arguments}
