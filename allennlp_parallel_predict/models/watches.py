"""What may change while a model predicts, each with a cheap way to notice that it has."""

import ctypes
import functools
import inspect
import itertools
import operator
import pickle
import random
from collections import deque
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

import numpy
import torch

SCALARS = (type(None), bool, int, float, complex, str, bytes)
CONTAINERS = (list, tuple, dict, set, frozenset, deque, bytearray)
ARRAYS = (numpy.ndarray, torch.Tensor)
_MISSING = object()
_FEW = 64
"""The elements of a container, and the bytes of a large array, that are compared."""
_SMALL_ARRAY = 4096
_KNOWN_ATTRIBUTES = {
    # Flags of AllenNLP's classes that are set once, or that nothing in an output depends on.
    "_added_to_vocabulary",
    "_distributed_info",
    "_source_max_exceeded",
    "_target_max_exceeded",
    "_worker_info",
    # `models.state.InputCounters` takes care of it.
    "_next_qid",
}


class Watch:
    """Notices that `read` returns something else than before, and says so in the words `text`."""

    def __init__(
        self, text: str, read: Callable[[], Any], same: Callable[[Any, Any], bool] = operator.eq
    ) -> None:
        self._text, self._read, self._same, self._last = text, read, same, read()

    def change(self) -> Optional[str]:
        """What has changed since the last call, in words, or `None`."""
        now = self._read()
        if self._same(now, self._last):
            return None
        self._last = now
        return self._text


class Attributes:
    """The variables of an object, a class or a module, as far as they are plain data."""

    def __init__(self, name: str, holder: Mapping[str, Any], owner: Any = None) -> None:
        self.name, self._holder, self._owner = name, holder, owner
        self._keys, self._values = tuple(holder), tuple(holder.values())
        self.appeared: List[Tuple[str, Any]] = []
        """Objects that were made at first use, and are to be watched from now on."""

    def change(self) -> Optional[str]:
        keys, values = tuple(self._holder), tuple(self._holder.values())
        if keys == self._keys and all(map(operator.is_, values, self._values)):
            return None
        before, now = dict(zip(self._keys, self._values)), dict(zip(keys, values))
        self._keys, self._values = keys, values
        changed = [
            key
            for key in {**now, **before}
            if self._differs(key, before.get(key, _MISSING), now.get(key, _MISSING))
        ]
        return f"its {self.name}.{changed[0]} changes while it predicts" if changed else None

    def _differs(self, key: str, before: Any, value: Any) -> bool:
        if before is value or key in _KNOWN_ATTRIBUTES or key.startswith("__"):
            return False
        if isinstance(value, SCALARS):
            if before is _MISSING and value is None:
                return False
            if type(before) is type(value) and before == value:
                return False
        elif value is not _MISSING and not isinstance(value, CONTAINERS + ARRAYS):
            self.appeared.append((f"{self.name}.{key}", value))
            return False
        # What is made once, at its first use, and always the same way, is no state.
        static = inspect.getattr_static(type(self._owner), key, None)
        return not isinstance(static, functools.cached_property)


def watch_generator(name: str, value: Any) -> Optional[Watch]:
    """A random generator, or an `itertools.count`; `None` if `value` is none."""
    read = _generator_reader(value)
    return Watch(f"it draws random numbers while it predicts ({name})", read) if read else None


def watch_contents(name: str, container: Any) -> Watch:
    """A list, a dictionary or the like: its length, and which elements it has."""
    return Watch(
        f"its {name} changes while it predicts", lambda: _elements(container), _have_same_elements
    )


def watch_array(name: str, array: Any) -> Watch:
    """The bytes of a tensor or array, which can be written without torch's counting it."""
    return Watch(f"it writes to {name} while it predicts", lambda: _sample(array))


def global_generators() -> List[Watch]:
    """Those of torch, Python and NumPy: their sequence is `predict`'s if the user seeds them."""
    named = {
        "torch": torch.default_generator,
        "random": random._inst,
        "numpy.random": numpy.random.mtrand._rand,
    }
    return list(filter(None, (watch_generator(name, value) for name, value in named.items())))


def _generator_reader(value: Any) -> Optional[Callable[[], Any]]:
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        *words, index = value.getstate()[1]
        return _words(id(value) + object.__basicsize__, [index, *words]) or value.getstate
    if isinstance(value, torch.Generator):
        return lambda: value.get_state().numpy().tobytes()
    if type(value) in (itertools.count, itertools.cycle):
        return lambda: repr(value)
    if isinstance(value, (numpy.random.Generator, numpy.random.RandomState)):
        is_new = isinstance(value, numpy.random.Generator)
        value = getattr(value, "bit_generator" if is_new else "_bit_generator")
    if isinstance(value, numpy.random.MT19937):
        state = value.state["state"]
        read = _words(value.ctypes.state_address, [*map(int, state["key"]), state["pos"]])
        if read is not None:
            return read
    if hasattr(value, "state") and type(value).__module__.startswith("numpy.random"):
        return lambda: pickle.dumps(value.state)
    return None


def _words(address: int, expected: Sequence[int]) -> Optional[Callable[[], Any]]:
    """
    Reads a Mersenne Twister where it lies: to ask for its state takes ten times as long, which a
    batch of one notices. `None` if it does not lie there.
    """
    words = (ctypes.c_uint32 * len(expected)).from_address(address)
    return (lambda: bytes(words)) if list(words) == list(expected) else None


def _elements(container: Any) -> Tuple[Any, ...]:
    size = len(container)
    if isinstance(container, dict):
        if size <= _FEW:
            return (*container.keys(), *container.values())
        return size, next(reversed(container))
    if size <= _FEW:
        return tuple(container)
    if isinstance(container, (list, tuple, bytearray)):
        return (size, container[-1], *container[:: size // _FEW])
    return (size,)


def _have_same_elements(these: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(these) == len(others) and all(
        one is other
        or (type(one) is type(other) and isinstance(one, SCALARS) and bool(one == other))
        for one, other in zip(these, others)
    )


def _sample(array: Any) -> bytes:
    """Some bytes of an array, or all if they are few."""
    if isinstance(array, torch.Tensor):
        array = array.detach().reshape(-1).view(torch.uint8).numpy()
    else:
        array = array.reshape(-1).view(numpy.uint8)
    step = 1 if len(array) <= _SMALL_ARRAY else len(array) // _FEW | 1
    return bytes(array[::step].tobytes())


def can_be_sampled(array: Any) -> bool:
    """Whether reading bytes of an array is cheap and possible."""
    if isinstance(array, torch.Tensor):
        is_plain = array.layout == torch.strided and array.device.type == "cpu"
        return is_plain and not array.is_quantized and array.numel() > 0 and array.is_contiguous()
    return array.size > 0 and array.flags.c_contiguous and array.dtype.kind in "biufcSU"
