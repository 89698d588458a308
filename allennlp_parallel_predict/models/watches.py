"""What may change while a model predicts, each with a cheap way to notice that it has."""

import ctypes
import functools
import inspect
import itertools
import pickle
import random
from collections import deque
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

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


class Generator:
    """A random generator, or an `itertools.count`."""

    def __init__(self, name: str, read: Callable[[], Any]) -> None:
        self.name, self._read, self._last = name, read, read()

    def change(self) -> Optional[str]:
        now = self._read()
        if now == self._last:
            return None
        self._last = now
        return f"it draws random numbers while it predicts ({self.name})"


class Attributes:
    """The variables of an object, a class or a module, as far as they are plain data."""

    def __init__(self, name: str, holder: Mapping[str, Any], owner: Any = None) -> None:
        self.name, self._holder, self._owner = name, holder, owner
        self._last: Dict[str, Any] = dict(holder)
        self.appeared: List[Tuple[str, Any]] = []
        """Objects that were made at first use, and are to be watched from now on."""

    def change(self) -> Optional[str]:
        last, holder, changed = self._last, self._holder, None
        for key, value in tuple(holder.items()):
            before = last.get(key, _MISSING)
            if before is not value and self._differs(key, before, value):
                changed = key
        if len(holder) < len(last):
            changed = next(key for key in last if key not in holder)
        if changed is None and not self.appeared and len(holder) == len(last):
            return None
        self._last = dict(holder)
        return _changes(f"{self.name}.{changed}") if changed is not None else None

    def _differs(self, key: str, before: Any, value: Any) -> bool:
        if key in _KNOWN_ATTRIBUTES or key.startswith("__"):
            return False
        if isinstance(value, SCALARS):
            if before is _MISSING and value is None:
                return False
            if type(before) is type(value) and before == value:
                return False
        elif not isinstance(value, CONTAINERS + ARRAYS):
            self.appeared.append((f"{self.name}.{key}", value))
            return False
        # What is made once, at its first use, and always the same way, is no state.
        static = inspect.getattr_static(type(self._owner), key, None)
        return not isinstance(static, functools.cached_property)


class Contents:
    """A list, a dictionary or the like: its length, and which elements it has."""

    def __init__(self, name: str, container: Any) -> None:
        self.name, self._container = name, container
        self._last = _elements(container)

    def change(self) -> Optional[str]:
        now = _elements(self._container)
        if len(now) == len(self._last) and all(map(_is_same, now, self._last)):
            return None
        self._last = now
        return _changes(self.name)


class ArrayContent:
    """The bytes of a tensor or array, which can be written without torch's counting it."""

    def __init__(self, name: str, array: Any) -> None:
        self.name, self._array = name, array
        self._look()

    def change(self) -> Optional[str]:
        if self._place() == self._at and self._sample.tobytes() == self._last:
            return None
        self._look()
        return f"it writes to {self.name} while it predicts"

    def _look(self) -> None:
        self._at, self._sample = self._place(), _sample(self._array)
        self._last = self._sample.tobytes()

    def _place(self) -> int:
        is_tensor = isinstance(self._array, torch.Tensor)
        return int(self._array.data_ptr() if is_tensor else self._array.ctypes.data)


def generator_reader(value: Any) -> Optional[Callable[[], Any]]:
    """A function that reads the state of a random generator; `None` if `value` is none."""
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return _words(id(value) + object.__basicsize__, _python_words(value)) or value.getstate
    if isinstance(value, torch.Generator):
        return lambda: value.get_state().numpy().tobytes()
    if isinstance(value, (numpy.random.Generator, numpy.random.RandomState)):
        is_new = isinstance(value, numpy.random.Generator)
        value = getattr(value, "bit_generator" if is_new else "_bit_generator")
    if isinstance(value, numpy.random.MT19937):
        return _words(value.ctypes.state_address, _numpy_words(value)) or _pickled_state(value)
    if hasattr(value, "state") and type(value).__module__.startswith("numpy.random"):
        return _pickled_state(value)
    if type(value) in (itertools.count, itertools.cycle):
        return lambda: repr(value)
    return None


def global_generators() -> List[Generator]:
    """Those of torch, Python and NumPy: their sequence is `predict`'s if the user seeds them."""
    named = [
        ("torch", torch.default_generator),
        ("random", random._inst),
        ("numpy.random", numpy.random.mtrand._rand),
    ]
    found = [(name, generator_reader(generator)) for name, generator in named]
    return [Generator(name, read) for name, read in found if read is not None]


def _pickled_state(value: Any) -> Callable[[], Any]:
    return lambda: pickle.dumps(value.state)


def _python_words(value: random.Random) -> Sequence[int]:
    *words, index = value.getstate()[1]
    return [index, *words]


def _numpy_words(value: Any) -> Sequence[int]:
    state = value.state["state"]
    return [*map(int, state["key"]), state["pos"]]


def _words(address: int, expected: Sequence[int]) -> Optional[Callable[[], Any]]:
    """
    Reads a Mersenne Twister where it lies: to ask for its state takes ten times as long, which a
    batch of one notices. `None` if it does not lie there.
    """
    words = (ctypes.c_uint32 * len(expected)).from_address(address)
    return (lambda: bytes(words)) if list(words) == list(expected) else None


def _changes(name: str) -> str:
    return f"its {name} changes while it predicts"


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


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    return type(one) is type(other) and isinstance(one, SCALARS) and bool(one == other)


def _sample(array: Any) -> Any:
    """A view of some bytes of an array, or of all if they are few."""
    if isinstance(array, torch.Tensor):
        array = array.detach().view(-1).view(torch.uint8).numpy()
    else:
        array = array.reshape(-1).view(numpy.uint8)
    return array if len(array) <= _SMALL_ARRAY else array[:: len(array) // _FEW | 1]


def can_be_sampled(array: Any) -> bool:
    """Whether reading bytes of an array is cheap and possible."""
    if isinstance(array, torch.Tensor):
        is_plain = array.layout == torch.strided and array.device.type == "cpu"
        return is_plain and not array.is_quantized and array.numel() > 0 and array.is_contiguous()
    return array.size > 0 and array.flags.c_contiguous and array.dtype.kind in "biufcSU"
