"""
Does a model keep something from batch to batch?

If it does, its output depends on the batches that the process saw before, and only one worker that
sees all of them in order writes what `allennlp predict` writes. Some models say so in advance (a
stateful encoder such as ELMo's); the others are found out by what a batch changes: a parameter or
buffer that was written to (torch counts the writes to a tensor in its version), or random numbers
that were drawn (whose sequence is `predict`'s if the user's code seeds torch). A predictor may
count its inputs, too, and write the number.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Set

import torch
from allennlp.modules.encoder_base import _EncoderBase
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.messages import are_consecutive


class _Slot(NamedTuple):
    """A parameter or buffer, and where its module keeps it."""

    name: str
    holder: Dict[str, Optional[torch.Tensor]]
    key: str
    tensor: torch.Tensor
    version: int


def stateful_encoder(model: torch.nn.Module) -> Optional[str]:
    """The name of a module that carries its hidden state from batch to batch, or `None`."""
    for name, module in model.named_modules():
        if isinstance(module, _EncoderBase) and module.stateful:
            return name
    return None


class ModelState:
    """
    Watches what a model changes in itself.

    # Parameters

    model : `torch.nn.Module`
        The model, as it is before its first batch.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._slots = _slots(model)
        self._random_state = random_state()

    def change(self) -> Optional[str]:
        """What has changed since the last call, in words, or `None`."""
        written = [
            slot.name
            for slot in self._slots
            if slot.holder.get(slot.key) is not slot.tensor or slot.tensor._version != slot.version
        ]
        if written:
            self._slots = _slots(self._model)
            return f"it writes to {written[0]} while it predicts"
        now = random_state()
        if now != self._random_state:
            self._random_state = now
            return "it draws random numbers while it predicts"
        return None


class InputCounters:
    """
    The numbers in which a predictor counts its inputs, such as the next id of `transformer_qa`. In
    each worker they are set to what they are in one process that predicts all inputs in order.

    # Parameters

    predictor : `Predictor`
        The predictor, as it is before its first batch.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._watched = [name for name, value in vars(predictor).items() if type(value) is int]
        self._start = self._last = self._numbers()
        self._names: Set[str] = set()

    def _numbers(self) -> Dict[str, Any]:
        attributes = vars(self._predictor)
        return {name: attributes.get(name) for name in self._watched}

    def __bool__(self) -> bool:
        return bool(self._names)

    def go_to(self, position: int) -> None:
        """The next input is the one at `position`, counted from 0."""
        for name in self._names:
            setattr(self._predictor, name, self._start[name] + position)

    def learn(self, positions: Sequence[int]) -> bool:
        """
        Looks at what a batch has changed.

        # Parameters

        positions : `Sequence[int]`
            The inputs' places among all, if they are known.

        # Returns

        `bool`
            Whether a counter has been found that has counted them from another number.
        """
        now = self._numbers()
        if now == self._last or not are_consecutive(positions):
            return False
        numbers = {name: last for name, last in self._last.items() if type(last) is int}
        found = {name for name in numbers if now[name] == numbers[name] + len(positions)}
        found -= self._names
        self._names |= found
        return any(numbers[name] != self._start[name] + positions[0] for name in found)

    def change(self) -> Optional[str]:
        """What else has changed since the last call, in words, or `None`."""
        now = self._numbers()
        if now == self._last:
            return None
        changed = {name for name in now if now[name] != self._last[name]} - self._names
        self._last = now
        return f"its predictor changes its {min(changed)}" if changed else None


def random_state() -> bytes:
    """Of torch, as bytes, which are compared in half the time of tensors."""
    return torch.get_rng_state().numpy().tobytes()


def _slots(model: torch.nn.Module) -> List[_Slot]:
    slots = []
    for prefix, module in model.named_modules():
        for holder in (module._parameters, module._buffers):
            for key, tensor in holder.items():
                if tensor is not None:
                    name = f"{prefix}.{key}" if prefix else key
                    slots.append(_Slot(name, holder, key, tensor, tensor._version))
    return slots
