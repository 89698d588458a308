"""
AllenNLP's beam search, without decoding beams that have ended, and with the same bits.

A batch is searched until its longest output is complete, and AllenNLP decodes all beams of all
instances until then. What it computes for a beam that has ended it throws away: but for rare cases,
such a beam can only end again. So only the rows of the others are given to the model. And what is
the same for all beams of an instance, such as the outputs of an encoder, is not moved from beam to
beam.
"""

from typing import Any, Callable, Dict, List, Optional, Tuple

import torch
from allennlp.nn.beam_search import BeamSearch, DeterministicSampler
from torch import Tensor

from allennlp_parallel_predict.accelerate.row_invariance import (
    KNOWN_PACKAGES,
    Probe,
    RowInvariance,
    fingerprints,
    is_row_by_row,
    is_watched,
    own_random_numbers,
    scatter_rows,
)

State = Dict[str, Any]
"""Tensors, each with a row for each beam."""
Step = Callable[[Tensor, State, int], Tuple[Tensor, State]]

_search = BeamSearch._search
_MIN_ROWS = 16
"""With fewer there is nothing to be gained."""
_MAX_REVIVALS = 3
_ENOUGH_NUMBERS = 512
"""Of each part of the state, in all samples of a trial together."""
_LEFT_OUT = "allennlp_parallel_predict: rows that may have been left out"
"""The state has it too, so that the search moves it along with the beams."""


def decode_live_beams_only(model: torch.nn.Module, exact: bool = True) -> None:
    """
    Changes the beam searches of a model, unless somebody else has changed AllenNLP's. On a GPU, or
    if they draw random numbers, have constraints, or decode with anything but AllenNLP's and
    transformers' modules, they stay as they are. For `exact` see `RowInvariance`.
    """
    is_untouched = _search.__module__ == BeamSearch.__module__ and BeamSearch._search is _search
    if not is_untouched or not is_row_by_row(model, *KNOWN_PACKAGES):
        return
    decoders = {module: _Decoder(exact) for module in model.modules()}

    def search(
        self: BeamSearch, start_predictions: Tensor, start_state: State, step: Step
    ) -> Tuple[Tensor, Tensor]:
        owner = getattr(step, "__self__", None)
        decoder = decoders.get(owner) if isinstance(owner, torch.nn.Module) else None
        if decoder is None or not decoder.fits(self, step, start_predictions):
            return _search(self, start_predictions, start_state, step)
        before = dict(start_state)
        try:
            return _search(self, start_predictions, start_state, _LiveStep(self, step, decoder))
        except _Revived:
            decoder.revivals += 1
        start_state.clear()
        start_state.update(before)
        return _search(self, start_predictions, start_state, step)

    BeamSearch._search = search  # type: ignore[method-assign]


class _Revived(Exception):
    """
    A beam that had ended goes on, from a state that was perhaps not computed: an instance has fewer
    possible beams than places.
    """


class _Decoder:
    """What is known of a module whose method is the step of a search."""

    def __init__(self, exact: bool) -> None:
        self.layouts = RowInvariance(exact)
        self.revivals = 0
        self.is_growing = False
        """Its state gets longer at each step, so what one step has shown says nothing of others."""
        self._modules: Optional[List[torch.nn.Module]] = None

    def fits(self, search: BeamSearch, step: Any, start_predictions: Tensor) -> bool:
        if self._modules is None:
            self._modules = list(step.__self__.modules())
        function = getattr(step, "__func__", step)
        is_plain = type(search) is BeamSearch and type(search.sampler) is DeterministicSampler
        return (
            is_plain
            and not search.constraints
            and not self.is_growing
            and self.revivals < _MAX_REVIVALS
            and len(start_predictions) * search.beam_size >= _MIN_ROWS
            and start_predictions.device.type == "cpu"
            and function.__module__.split(".")[0] in KNOWN_PACKAGES
            and not is_watched(*self._modules)
        )


class _LiveStep:
    """The step function of one search, for the rows that need it."""

    def __init__(self, search: BeamSearch, step: Step, decoder: _Decoder) -> None:
        self._end_index = search._end_index
        self._beam_size = search.beam_size
        self._step = step
        self._decoder = decoder
        self._is_random = False
        self._fixed: State = {}
        """What is the same for all beams of an instance, by instance."""
        self._instances = torch.empty(0, dtype=torch.long)
        self._fixed_by_row: State = {}

    def __call__(self, tokens: Tensor, state: State, timestep: int) -> Tuple[Tensor, State]:
        if timestep == 0:
            return self._start(tokens, state)
        ended = tokens == self._end_index
        left_out = state.pop(_LEFT_OUT, None)
        if left_out is not None and bool((left_out & ~ended).any()):
            raise _Revived
        rows = self._choose(ended, tokens, state, timestep)
        if rows is None:
            log_probabilities, computed = self._run(None, tokens, state, timestep)
            if left_out is not None:
                computed[_LEFT_OUT] = ended
            return log_probabilities, computed
        part = _select(rows, state)
        log_probabilities, computed = self._run(rows, tokens[rows], dict(part), timestep)
        for key, tensor in computed.items():
            if tensor is part.get(key):
                computed[key] = state.get(key)
            elif tensor is not None:
                computed[key] = scatter_rows(tensor, rows, len(tokens), _dimension(key, tensor))
        computed[_LEFT_OUT] = ended
        # The search does not look at the rows that were left out.
        return scatter_rows(log_probabilities, rows, len(tokens), 0), computed

    def _start(self, tokens: Tensor, state: State) -> Tuple[Tensor, State]:
        """The first step has one row for each instance."""
        given, before = dict(state), torch.get_rng_state()
        log_probabilities, state = self._step(tokens, state, 0)
        self._is_random = not torch.equal(torch.get_rng_state(), before)
        if self._beam_size > 1:  # else AllenNLP does not even copy it
            self._fixed = {
                key: tensor
                for key, tensor in state.items()
                if tensor is given.get(key) and _has_rows(key, tensor, len(tokens))
            }
        moving = {key: tensor for key, tensor in state.items() if key not in self._fixed}
        return log_probabilities, moving

    def _choose(
        self, ended: Tensor, tokens: Tensor, state: State, timestep: int
    ) -> Optional[Tensor]:
        """The rows to compute, or `None` for all."""
        if self._is_random or self._decoder.is_growing or not ended.any():
            return None
        if not all(_has_rows(key, tensor, len(ended)) for key, tensor in state.items()):
            return None
        parts = {**state, **self._fixed}
        shapes = tuple((key, tensor.shape, tensor.dtype) for key, tensor in parts.items())
        fewest = min((tensor.numel() for tensor in state.values()), default=1) // len(ended)
        samples = -(-_ENOUGH_NUMBERS // max(1, fewest))

        def new_trial() -> Probe:
            row = (~ended).nonzero()[0]
            sample = _select(row, state)
            sample.update(_select(self._instances_of(row), self._fixed))
            return _trial(self._step, tokens[row], sample, timestep, samples)

        return self._decoder.layouts.choose(ended, shapes, new_trial, samples)

    def _run(
        self, rows: Optional[Tensor], tokens: Tensor, state: State, timestep: int
    ) -> Tuple[Tensor, State]:
        """What the step computes for rows, without what is the same for all beams."""
        fixed = self._fixed_of(torch.arange(len(tokens)) if rows is None else rows)
        shapes = {key: tensor.shape for key, tensor in state.items() if tensor is not None}
        log_probabilities, computed = self._step(tokens, {**state, **fixed}, timestep)
        for key, tensor in fixed.items():
            if computed.get(key) is not tensor:
                del self._fixed[key]  # it is not the same from now on
        moving = {key: tensor for key, tensor in computed.items() if key not in self._fixed}
        self._decoder.is_growing |= any(
            key in shapes and tensor is not None and tensor.shape != shapes[key]
            for key, tensor in moving.items()
        )
        return log_probabilities, moving

    def _fixed_of(self, rows: Tensor) -> State:
        instances = self._instances_of(rows)
        is_known = self._fixed_by_row.keys() == self._fixed.keys()
        if not is_known or not torch.equal(instances, self._instances):
            self._instances = instances
            self._fixed_by_row = _select(instances, self._fixed)
        return self._fixed_by_row

    def _instances_of(self, rows: Tensor) -> Tensor:
        return rows.div(self._beam_size, rounding_mode="trunc")


def _trial(step: Step, token: Tensor, sample: State, timestep: int, samples: int) -> Probe:
    """Tries rows that differ from this one, and have no zeros, which add up alike in any order."""
    factors = torch.rand(samples, generator=own_random_numbers()) + 0.5

    def trial(size: int) -> Tensor:
        rows = torch.zeros(size, dtype=torch.long)
        found = torch.zeros(size, dtype=torch.long)
        for factor in factors:
            given = {
                key: (
                    (tensor + 0.1) * factor.to(tensor.dtype)
                    if tensor.is_floating_point()
                    else tensor
                )
                for key, tensor in _select(rows, sample).items()
            }
            log_probabilities, computed = step(token[rows], dict(given), timestep)
            found = 31 * found + fingerprints(log_probabilities)
            for key, tensor in computed.items():
                if tensor is not None and tensor is not given.get(key):
                    by_row = tensor.movedim(_dimension(key, tensor), 0)
                    found = 31 * found + fingerprints(by_row)
        return found

    return trial


def _select(rows: Tensor, state: State) -> State:
    return {
        key: tensor.index_select(_dimension(key, tensor), rows) for key, tensor in state.items()
    }


def _has_rows(key: str, tensor: Optional[Tensor], count: int) -> bool:
    if tensor is None or tensor.dim() == 0 or not tensor.is_contiguous():
        return False
    return tensor.size(_dimension(key, tensor)) == count


def _dimension(key: str, tensor: Tensor) -> int:
    """The one of the rows."""
    return int(BeamSearch._is_multilayer_rnn_decoder(key, tensor))
