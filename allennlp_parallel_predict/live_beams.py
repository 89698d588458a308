"""
AllenNLP's beam search, without decoding beams that have ended, and with the same bits.

A batch is searched until its longest output is complete, and AllenNLP decodes all beams of all
instances until then. What it computes for a beam that has ended it throws away: such a beam can
only end again. So only the rows of the others are given to the model. And what is the same for all
beams of an instance, such as the outputs of an encoder, is not moved from beam to beam.
"""

from typing import Callable, Dict, Optional, Tuple
from weakref import WeakKeyDictionary

import torch
from allennlp.nn.beam_search import BeamSearch, DeterministicSampler
from torch import Tensor

from allennlp_parallel_predict.row_layouts import RowLayouts, Trial, bits, spread

State = Dict[str, Tensor]
Step = Callable[[Tensor, State, int], Tuple[Tensor, State]]

_search = BeamSearch._search
_MIN_ROWS = 16
"""With fewer there is nothing to be gained."""
_PURE = {"torch", "allennlp", "allennlp_models", "transformers"}
"""Packages whose decoders give the same when they are asked twice."""
_LEFT_OUT = "allennlp_parallel_predict: rows that were left out"
"""The state has it too, so that the search moves it along with the beams."""


def decode_live_beams_only(exact: bool = True) -> None:
    """
    Changes the beam searches of this process, unless somebody else has. Searches that draw random
    numbers or have constraints, and models with modules of the user's own stay as they are.

    # Parameters

    exact : `bool`, optional (default = `True`)
        See `RowLayouts`.
    """
    if _search.__module__ != BeamSearch.__module__ or BeamSearch._search is not _search:
        return
    layouts: "WeakKeyDictionary[torch.nn.Module, Optional[RowLayouts]]" = WeakKeyDictionary()

    def layouts_of(search: BeamSearch, step: Step) -> Optional[RowLayouts]:
        owner = getattr(step, "__self__", None)
        if not isinstance(owner, torch.nn.Module) or not _is_plain(search):
            return None
        if owner not in layouts:
            layouts[owner] = RowLayouts(exact) if _is_pure(owner) else None
        return layouts[owner]

    def search(
        self: BeamSearch, start_predictions: Tensor, start_state: State, step: Step
    ) -> Tuple[Tensor, Tensor]:
        known = layouts_of(self, step)
        is_small = len(start_predictions) * self.beam_size < _MIN_ROWS
        if known is None or is_small or start_predictions.is_cuda:
            return _search(self, start_predictions, start_state, step)
        before = dict(start_state)
        try:
            return _search(self, start_predictions, start_state, _LiveStep(self, step, known))
        except _Revived:
            start_state.clear()
            start_state.update(before)
            return _search(self, start_predictions, start_state, step)

    BeamSearch._search = search  # type: ignore[assignment]


def _is_plain(search: BeamSearch) -> bool:
    """Whether what is done with a row depends on nothing but that row and its instance."""
    is_deterministic = type(search.sampler) is DeterministicSampler
    return type(search) is BeamSearch and is_deterministic and not search.constraints


def _is_pure(owner: torch.nn.Module) -> bool:
    return all(type(module).__module__.split(".")[0] in _PURE for module in owner.modules())


class _Revived(Exception):
    """
    A beam that had ended goes on, from a state that was not computed: an instance has fewer
    possible beams than places.
    """


class _LiveStep:
    """The step function of one search, for the rows that need it."""

    def __init__(self, search: BeamSearch, step: Step, layouts: RowLayouts) -> None:
        self._search = search
        self._step = step
        self._layouts = layouts
        self._fixed: State = {}
        """What is the same for all beams of an instance, by instance."""
        self._instances = torch.empty(0, dtype=torch.long)
        self._fixed_by_row: State = {}

    def __call__(self, tokens: Tensor, state: State, timestep: int) -> Tuple[Tensor, State]:
        if timestep == 0:
            return self._start(tokens, state)
        ended = tokens == self._search._end_index
        left_out = state.pop(_LEFT_OUT, None)
        if left_out is not None and bool((left_out & ~ended).any()):
            raise _Revived
        rows = self._choose(ended, tokens, state, timestep)
        if rows is None:
            return self._run(torch.arange(len(tokens)), tokens, state, timestep)
        part = self._select(rows, state)
        log_probabilities, computed = self._run(rows, tokens[rows], part, timestep)
        for key, tensor in computed.items():
            computed[key] = spread(tensor, rows, len(tokens), self._dimension(key, tensor))
        computed[_LEFT_OUT] = ended.index_fill(0, rows, False)
        # The search does not look at the rows that were left out.
        return spread(log_probabilities, rows, len(tokens), 0), computed

    def _start(self, tokens: Tensor, state: State) -> Tuple[Tensor, State]:
        """The first step has one row for each instance."""
        given = dict(state)
        log_probabilities, state = self._step(tokens, state, 0)
        self._fixed = {
            key: tensor
            for key, tensor in state.items()
            if tensor is given.get(key) and self._has_rows(key, tensor, len(tokens))
        }
        moving = {key: tensor for key, tensor in state.items() if key not in self._fixed}
        return log_probabilities, moving

    def _choose(
        self, ended: Tensor, tokens: Tensor, state: State, timestep: int
    ) -> Optional[Tensor]:
        """The rows to compute, or `None` for all."""
        if not ended.any():
            return None
        if not all(self._has_rows(key, tensor, len(ended)) for key, tensor in state.items()):
            return None
        parts = {**state, **self._fixed}
        shapes = tuple((key, tensor.shape, tensor.dtype) for key, tensor in parts.items())

        def new_trial() -> Trial:
            row = (~ended).nonzero()[0]
            sample = self._select(row, state)
            sample.update(self._select(self._instances_of(row), self._fixed))
            return self._trial(tokens[row], sample, timestep)

        return self._layouts.choose(ended, shapes, new_trial)

    def _run(
        self, rows: Tensor, tokens: Tensor, state: State, timestep: int
    ) -> Tuple[Tensor, State]:
        """What the step computes for rows, without what is the same for all beams."""
        fixed = self._fixed_of(rows)
        log_probabilities, computed = self._step(tokens, {**state, **fixed}, timestep)
        for key, tensor in fixed.items():
            if computed.get(key) is not tensor:
                del self._fixed[key]  # it is not the same from now on
        moving = {key: tensor for key, tensor in computed.items() if key not in self._fixed}
        return log_probabilities, moving

    def _fixed_of(self, rows: Tensor) -> State:
        instances = self._instances_of(rows)
        is_known = self._fixed_by_row.keys() == self._fixed.keys()
        if not is_known or not torch.equal(instances, self._instances):
            self._instances = instances
            self._fixed_by_row = self._select(instances, self._fixed)
        return self._fixed_by_row

    def _trial(self, token: Tensor, sample: State, timestep: int) -> Trial:
        """See `Trial`; it keeps nothing else of this search."""
        step, select, dimension = self._step, self._select, self._dimension

        def trial(size: int) -> Tensor:
            rows = torch.zeros(size, dtype=torch.long)
            given = select(rows, sample)
            log_probabilities, computed = step(token[rows], dict(given), timestep)
            results = [log_probabilities] + [
                tensor.movedim(dimension(key, tensor), 0)
                for key, tensor in computed.items()
                if tensor is not given.get(key)
            ]
            return torch.cat([bits(result.reshape(size, -1).double()) for result in results], 1)

        return trial

    def _instances_of(self, rows: Tensor) -> Tensor:
        return rows.div(self._search.beam_size, rounding_mode="trunc")

    def _select(self, rows: Tensor, state: State) -> State:
        return {
            key: tensor.index_select(self._dimension(key, tensor), rows)
            for key, tensor in state.items()
        }

    def _has_rows(self, key: str, tensor: Optional[Tensor], count: int) -> bool:
        if tensor is None or tensor.dim() == 0:
            return False
        return tensor.size(self._dimension(key, tensor)) == count

    def _dimension(self, key: str, tensor: Tensor) -> int:
        """The one of the rows."""
        return int(self._search._is_multilayer_rnn_decoder(key, tensor))
