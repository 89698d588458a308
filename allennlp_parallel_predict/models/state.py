"""
Does a model keep something from batch to batch?

If it does, its output depends on the batches that the process saw before, and only one worker that
sees all of them in order writes what `allennlp predict` writes. Some models say so in advance (a
stateful encoder such as ELMo's); the others are found out by what a batch changes:

- random generators: torch's, Python's and NumPy's, and those that the model, the predictor or the
  reader holds;
- parameters and buffers: torch counts the writes to a tensor in its version, and writes through
  `.data` or `.numpy()` show in a sample of its bytes;
- plain data (numbers, texts, lists, dictionaries, arrays) in objects of the user's classes, in
  those classes, and in the modules that define them. AllenNLP's and other libraries' own objects
  are not compared: they keep metrics and caches.

A cache cannot be told from a memory by looking at it, so it counts as state.
"""

import random
import sys
import time
from types import ModuleType
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple, Type, Union

import numpy
import torch
from allennlp.common.from_params import FromParams
from allennlp.data.vocabulary import Vocabulary
from allennlp.modules.encoder_base import _EncoderBase
from allennlp.predictors.predictor import Predictor
from allennlp.training.metrics.metric import Metric

from allennlp_parallel_predict.common.messages import are_consecutive
from allennlp_parallel_predict.models.watches import (
    ARRAYS,
    CONTAINERS,
    SCALARS,
    Attributes,
    Watch,
    can_be_sampled,
    global_generators,
    watch_array,
    watch_contents,
    watch_generator,
)

_LIBRARIES = set("allennlp allennlp_models allennlp_parallel_predict torch torchvision".split())
_LIBRARIES |= set("transformers tokenizers spacy thinc numpy builtins collections".split())
_OWN_OF_MODULES = set(vars(torch.nn.Module()))
_NO_OBJECTS = SCALARS + (type, ModuleType)
_MOST_ELEMENTS = 1000
_MOST_OBJECTS = 20_000
_SHARE_OF_TIME = 1 / 1000
"""That comparing bytes of tensors may take. The other checks take microseconds."""
_COUNTERS = {"allennlp_models.rc.predictors.transformer_qa.TransformerQAPredictor": "_next_qid"}
_Slot = Tuple[str, Dict[str, Optional[torch.Tensor]], str, torch.Tensor, int]
"""A parameter or buffer: its name, where its module keeps it, and its version."""


def stateful_encoder(model: torch.nn.Module) -> Optional[str]:
    """The name of a module that carries its hidden state from batch to batch, or `None`."""
    for name, module in model.named_modules():
        if isinstance(module, _EncoderBase) and module.stateful:
            return str(name)
    return None


class ModelState:
    """Watches what predicting changes in a predictor, its model and its reader, from now on."""

    def __init__(self, predictor: Predictor) -> None:
        self._model = predictor._model
        self._slots = _slots(self._model)
        self._watches: List[Union[Watch, Attributes]] = [*global_generators()]
        self._arrays: List[Watch] = []
        self._walk = _Walk(self._watches, self._arrays)
        self._walk.visit("model", self._model)
        self._walk.visit("dataset reader", getattr(predictor, "_dataset_reader", None))
        self._walk.visit("predictor", predictor)
        for name, _, _, tensor, _ in self._slots:
            if can_be_sampled(tensor):
                self._arrays.append(watch_array(name, tensor))
        self._due = 0.0

    def change(self) -> Optional[str]:
        """What has changed since the last call, in words, or `None`."""
        changes = self._written()
        for watch in tuple(self._watches):
            changes.append(watch.change())
            while isinstance(watch, Attributes) and watch.appeared:
                self._walk.visit(*watch.appeared.pop())
        start = time.perf_counter()
        if start >= self._due:
            changes += [array.change() for array in self._arrays]
            now = time.perf_counter()
            # The second batch is always looked at: the first may have made what is needed once.
            self._due = now + (now - start) / _SHARE_OF_TIME if self._due else now
        return next(filter(None, changes), None)

    def _written(self) -> List[Optional[str]]:
        for name, holder, key, tensor, version in self._slots:
            if holder.get(key) is not tensor or tensor._version != version:
                self._slots = _slots(self._model)
                return [f"it writes to {name} while it predicts"]
        return []


class _Walk:
    """Finds what is to be watched among the objects that others hold."""

    def __init__(self, watches: List[Union[Watch, Attributes]], arrays: List[Watch]) -> None:
        self._watches, self._arrays = watches, arrays
        self._seen: Dict[int, Any] = {}  # the objects too, so that no number is used twice
        self._user_packages: Set[str] = set()

    def visit(self, name: str, value: Any, is_users: bool = False) -> None:
        """From an object, its name for a person, and whether one of the user's objects holds it."""
        waiting: List[Tuple[str, Any, bool]] = [(name, value, is_users)]
        while waiting and len(self._seen) < _MOST_OBJECTS:
            name, value, is_users = waiting.pop()
            if isinstance(value, _NO_OBJECTS) or id(value) in self._seen:
                continue
            self._seen[id(value)] = value
            generator = watch_generator(name, value)
            if generator is not None:
                self._watches.append(generator)
            elif isinstance(value, ARRAYS):
                if is_users and can_be_sampled(value):
                    self._arrays.append(watch_array(name, value))
            elif isinstance(value, CONTAINERS):
                if is_users:
                    self._watches.append(watch_contents(name, value))
                waiting += _held(name, value, is_users)
            elif not isinstance(value, (Metric, Vocabulary)):
                waiting += self._parts(name, value)

    def _parts(self, name: str, value: Any) -> List[Tuple[str, Any, bool]]:
        """What an object holds, if it is the user's, AllenNLP's or a module."""
        attributes = getattr(value, "__dict__", None)
        is_users = self._is_users(type(value))
        if attributes is None or not (is_users or isinstance(value, (FromParams, torch.nn.Module))):
            return []
        if is_users:
            self._watches.append(Attributes(name, attributes, value))
            for owner in filter(self._is_users, type(value).__mro__):
                module = sys.modules.get(owner.__module__)
                for scope, whole in ((owner.__qualname__, owner), (owner.__module__, module)):
                    self._visit_scope(scope, whole)
        own = _OWN_OF_MODULES - {"_modules"} if isinstance(value, torch.nn.Module) else ()
        return [
            (f"{name}.{key}", part, is_users and key not in _OWN_OF_MODULES)
            for key, part in list(attributes.items())
            if key not in own
        ]

    def _visit_scope(self, name: str, whole: Any) -> None:
        """The variables of a class or module of the user's."""
        if whole is None or id(whole) in self._seen:
            return
        self._seen[id(whole)] = whole
        self._watches.append(Attributes(name, vars(whole)))
        for key, part in list(vars(whole).items()):
            if not key.startswith("__"):
                self.visit(f"{name}.{key}", part, is_users=True)

    def _is_users(self, owner: Type[Any]) -> bool:
        package = str(owner.__module__).partition(".")[0]
        if package in _LIBRARIES:
            return False
        if issubclass(owner, (FromParams, torch.nn.Module)):
            self._user_packages.add(package)
        return package in self._user_packages


class InputCounters:
    """
    The numbers in which a known predictor counts its inputs, such as the next id of
    `transformer_qa`. In each worker they are set to what they are in one process that predicts all
    inputs in order.
    """

    def __init__(self, predictor: Predictor) -> None:
        classes = (f"{owner.__module__}.{owner.__qualname__}" for owner in type(predictor).__mro__)
        names = [_COUNTERS[name] for name in classes if name in _COUNTERS]
        self._predictor = predictor
        self._start: Dict[str, int] = {name: getattr(predictor, name) for name in names}
        self._last = dict(self._start)
        self._is_known = True

    def __bool__(self) -> bool:
        return bool(self._start)

    def go_to(self, positions: Sequence[int]) -> None:
        """The next inputs are those at `positions`, counted from 0, if they are known."""
        self._is_known = are_consecutive(positions)
        if self._is_known:
            for name, start in self._start.items():
                setattr(self._predictor, name, start + positions[0])

    def change(self) -> Optional[str]:
        """What has been counted although the inputs' positions are not known, or `None`."""
        for name, last in self._last.items():
            self._last[name] = getattr(self._predictor, name)
            if self._last[name] != last and not self._is_known:
                return f"its predictor changes its {name}"
        return None


class RandomStates(NamedTuple):
    """The states of the global random generators, for another process to go on from."""

    torch: Any
    python: Any
    numpy: Any

    @classmethod
    def read(cls) -> "RandomStates":
        return cls(torch.get_rng_state(), random.getstate(), numpy.random.get_state())

    def restore(self) -> None:
        torch.set_rng_state(self.torch)
        random.setstate(self.python)  # which Python has seeded by chance after a fork
        numpy.random.set_state(self.numpy)


def _held(name: str, container: Any, is_users: bool) -> List[Tuple[str, Any, bool]]:
    if isinstance(container, bytearray) or len(container) > _MOST_ELEMENTS:
        return []
    values = container.values() if isinstance(container, dict) else container
    return [(name, value, is_users) for value in list(values) if not isinstance(value, SCALARS)]


def _slots(model: torch.nn.Module) -> List[_Slot]:
    slots: List[_Slot] = []
    for prefix, module in model.named_modules():
        for holder in (module._parameters, module._buffers):
            for key, tensor in holder.items():
                if tensor is not None:
                    name = f"{prefix}.{key}" if prefix else key
                    slots.append((name, holder, key, tensor, tensor._version))
    return slots
