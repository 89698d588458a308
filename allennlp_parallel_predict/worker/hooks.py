"""
Stages set on a predictor, its reader and its model, and taken off again without a trace.

The hooks are on the objects themselves where AllenNLP calls methods of objects, so a subclass that
overrides `predict_json` or `predict_batch_json` is measured as well; functions that AllenNLP calls
by name are replaced in the modules that know them.
"""

import functools
import inspect
import logging
import sys
from typing import Any, Callable, Dict, Iterable, List, Tuple

import torch
from allennlp.data import Batch
from allennlp.data.fields import TextField
from allennlp.nn import util
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.stages import (
    DUMP_LINE,
    FORWARD,
    INDEXING,
    LOAD_LINE,
    PREDICTOR,
    READABLE,
    SANITIZE,
    SPLITTING,
    TO_DEVICE,
    TO_INSTANCE,
)
from allennlp_parallel_predict.common.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

_PREDICTOR_METHODS = {
    "load_line": LOAD_LINE,
    "_json_to_instance": TO_INSTANCE,
    "_batch_json_to_instances": TO_INSTANCE,
    "dump_line": DUMP_LINE,
    # What is in none of the others is the predictor's own code.
    "predict_json": PREDICTOR,
    "predict_instance": PREDICTOR,
    "predict_batch_json": PREDICTOR,
    "predict_batch_instance": PREDICTOR,
}

_MISSING = object()


class Patches:
    """Attributes that are replaced for a while."""

    def __init__(self) -> None:
        self._before: List[Tuple[Any, str, Any]] = []
        self.missing: List[str] = []
        """What was to be replaced and is not there: its time is in the stage around it."""

    def set(self, owner: Any, name: str, value: Any) -> None:
        self._before.append((owner, name, vars(owner).get(name, _MISSING)))
        setattr(owner, name, value)

    def wrap(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        """Replaces a method or function by what `wrap` makes of it."""
        function = getattr(owner, name, None)
        if callable(function):
            self.set(owner, name, wrap(function))
        else:
            self.missing.append(name)
            logger.warning("the profile has no stage for %s: %r has no such method", name, owner)

    def undo(self) -> None:
        """Puts everything back."""
        while self._before:
            owner, name, before = self._before.pop()
            if before is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, before)


class Lengths:
    """The lengths in tokens of the instances that a batch was made of."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.instances: List[int] = []
        self.tokens = 0
        self.padded = 0
        """The tokens and the padding that goes with them."""

    def add(self, instances: Iterable[Any]) -> None:
        """Notes instances that are padded to one length."""
        by_field: Dict[str, List[int]] = {}
        for instance in instances:
            total = 0
            for name, field in instance.fields.items():
                if isinstance(field, TextField):
                    length = len(field)
                    total += length
                    by_field.setdefault(name, []).append(length)
            self.instances.append(total)
        for lengths in by_field.values():
            self.tokens += sum(lengths)
            self.padded += len(lengths) * max(lengths)


def watch_predictor(
    predictor: Predictor, watch: Stopwatch, lengths: Lengths, patches: Patches
) -> None:
    """
    Sets the stages of prediction.

    # Parameters

    predictor : `Predictor`
        What is measured.
    watch : `Stopwatch`
        What takes the time.
    lengths : `Lengths`
        What notes the instances of each batch that is made.
    patches : `Patches`
        How to take everything off again.
    """
    model, reader = predictor._model, predictor._dataset_reader
    index_instances = Batch.index_instances

    def index_and_measure(batch: Batch, vocab: Any) -> None:
        lengths.add(batch.instances)
        index_instances(batch, vocab)

    patches.set(Batch, "index_instances", watch.timed(INDEXING, index_and_measure))
    targets: List[Tuple[Any, str, str]]
    targets = [(predictor, name, stage) for name, stage in _PREDICTOR_METHODS.items()]
    targets += [(model, "forward_on_instances", SPLITTING), (Batch, "as_tensor_dict", INDEXING)]
    targets += [(module, "sanitize", SANITIZE) for module in _modules_of(predictor)]
    if reader is not None:
        # On the class, as recorded calls are made there (see `data/lazy_instances.py`); those of
        # static methods are not recorded.
        method = inspect.getattr_static(type(reader), "text_to_instance", None)
        owner = reader if isinstance(method, (staticmethod, classmethod)) else type(reader)
        targets += [(reader, "apply_token_indexers", INDEXING)]
        targets += [(owner, "text_to_instance", TO_INSTANCE)]
    for owner, name, stage in targets:
        patches.wrap(owner, name, functools.partial(watch.timed, stage))
    targets = [(model, "forward", FORWARD), (model, "make_output_human_readable", READABLE)]
    for owner, name, stage in [*targets, (util, "move_to_device", TO_DEVICE)]:
        patches.wrap(owner, name, _timed_until_done(watch, stage, model))


def _modules_of(predictor: Predictor) -> List[Any]:
    names = {cls.__module__ for cls in type(predictor).__mro__}
    return [sys.modules[name] for name in sorted(names) if "sanitize" in vars(sys.modules[name])]


def _timed_until_done(watch: Stopwatch, stage: str, model: torch.nn.Module) -> Callable[[Any], Any]:
    return lambda function: watch.timed(stage, _until_done(model, function))


def _until_done(model: torch.nn.Module, function: Callable[..., Any]) -> Callable[..., Any]:
    """A GPU works on when a function has returned; what it does then belongs to the function."""
    devices = {parameter.device for parameter in model.parameters() if parameter.is_cuda}
    if not devices:
        return function

    @functools.wraps(function)
    def and_wait(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        for device in devices:
            torch.cuda.synchronize(device)
        return result

    return and_wait
