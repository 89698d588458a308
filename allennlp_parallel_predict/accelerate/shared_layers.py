"""Through which layers lines may pass together, and whether the code around them allows it."""

from types import FunctionType, MethodType
from typing import Any, List, Set

import torch
from allennlp.common import Registrable
from allennlp.data import Vocabulary
from allennlp.predictors import Predictor
from torch.nn import Linear

from allennlp_parallel_predict.accelerate.padding import is_known
from allennlp_parallel_predict.accelerate.row_invariance import (
    KNOWN_PACKAGES,
    is_row_by_row,
    is_watched,
)

_LARGE = 1000
"""A list or dictionary with more than that holds data."""
_METHODS = ("load_line", "predict_json", "predict_instance", "dump_line")
_SMALLEST = 100_000
"""The weights of a layer, on average, with which it is worth to wait for others."""


def layers_to_share(predictor: Predictor, is_asked_for: bool = False) -> List[Linear]:
    """
    # Parameters

    predictor : `Predictor`
        The predictor, before anything in it is changed.
    is_asked_for : `bool`, optional (default = `False`)
        Whether it is known that lines can be predicted so. Else all code has to be AllenNLP's, as
        other code may keep something of a line while it predicts another, or be at home in one
        thread; and the layers have to be large enough to be worth it.

    # Returns

    `List[Linear]`
        The layers through which lines may pass together; none if lines have to be predicted one
        after the other, or if there is nothing to be gained.
    """
    model = predictor._model
    if not is_asked_for and not _is_known_code(predictor):
        return []
    transformers = filter(is_known, model.modules())
    layers = {part: None for parent in transformers for part in parent.modules()}
    linears = [
        layer for layer in layers if type(layer) is Linear and layer.weight.device.type == "cpu"
    ]
    is_worth_it = sum(linear.weight.numel() for linear in linears) >= _SMALLEST * len(linears)
    return linears if is_asked_for or is_worth_it else []


def _is_known_code(predictor: Predictor) -> bool:
    model = predictor._model
    methods = [getattr(predictor, name) for name in _METHODS]
    if not all(isinstance(method, MethodType) for method in methods):
        return False
    parts = [predictor, *(method.__func__ for method in methods)]
    is_safe = not is_watched(*model.modules()) and _is_known(parts, set())
    return is_safe and is_row_by_row(model, *KNOWN_PACKAGES)


def _is_known(part: Any, seen: Set[int]) -> bool:
    """Whether AllenNLP's code is all that there is in a predictor, reader, tokenizer, ..."""
    if isinstance(part, (dict, list, tuple)):
        parts = list(part.values() if isinstance(part, dict) else part)
        return len(parts) > _LARGE or all(_is_known(each, seen) for each in parts)
    is_function = isinstance(part, FunctionType)
    package = (part if is_function else type(part)).__module__.split(".")[0]
    if package not in KNOWN_PACKAGES:
        return not (is_function or isinstance(part, Registrable))
    is_data = isinstance(part, (torch.nn.Module, Vocabulary)) or package == "transformers"
    if is_data or id(part) in seen:
        return True
    seen.add(id(part))
    return _is_known(list(getattr(part, "__dict__", {}).values()), seen)
