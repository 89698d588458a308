"""AllenNLP's beam search, with less copying and the same bits."""

from typing import Any, Dict, Optional

import torch
from allennlp.nn.beam_search import BeamSearch

_update_state = BeamSearch._update_state


def use_row_copies() -> None:
    """
    Makes beam searches of this process move the states of the beams row by row. AllenNLP's own way,
    `gather` with an index for each number, takes a tenth of the time of a search whose state has
    the outputs of an encoder. What somebody else has put in its place stays.
    """
    is_untouched = _update_state.__module__ == BeamSearch.__module__
    if is_untouched and BeamSearch._update_state is _update_state:
        BeamSearch._update_state = _update_state_by_rows  # type: ignore[assignment]


def _update_state_by_rows(
    self: BeamSearch, state: Dict[str, Optional[torch.Tensor]], backpointer: torch.Tensor
) -> None:
    """
    Keeps the beams that go on.

    # Parameters

    state : `Dict[str, Optional[torch.Tensor]]`
        Tensors of shape `(batch_size * beam_size, *)`; those of a decoder with several layers have
        the layers in front of that.
    backpointer : `torch.Tensor`
        Shape `(batch_size, beam_size)`: which of the beams of its instance each beam goes on from.
    """
    batch_size, beam_size = backpointer.size()
    first_rows = torch.arange(batch_size, device=backpointer.device) * beam_size
    rows = (backpointer + first_rows.unsqueeze(1)).view(-1)
    others: Dict[str, Any] = {}
    for key, tensor in state.items():
        dimension = int(tensor is not None and self._is_multilayer_rnn_decoder(key, tensor))
        if tensor is None or tensor.dim() == 0 or tensor.size(dimension) != len(rows):
            others[key] = tensor  # what becomes of it, an error perhaps, is AllenNLP's to decide
        else:
            state[key] = tensor.index_select(dimension, rows)
    if others:
        _update_state(self, others, backpointer)
        state.update(others)
