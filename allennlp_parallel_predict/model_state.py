"""
Does a model keep something from batch to batch?

If it does, its output depends on the batches that the process saw before, and only one worker that
sees all of them in order writes what `allennlp predict` writes. Some models say so in advance (a
stateful encoder such as ELMo's); the others are found out by what a batch changes: a parameter or
buffer that was written to (torch counts the writes to a tensor in its version), or random numbers
that were drawn (whose sequence is `predict`'s if the user's code seeds torch).
"""

from typing import Dict, List, NamedTuple, Optional

import torch
from allennlp.modules.encoder_base import _EncoderBase


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
