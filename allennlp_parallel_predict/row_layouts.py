"""
Which rows of a batch can be computed without the others, to the same bits.

A matrix product may sum in another order for its last few rows, or when there are few of them. So
numbers of rows are tried before they are used: a model is run on copies of one row. The positions
that give the same bits, with this number of rows or another, are computed in the same way; and that
holds for all data of these shapes, as kernels choose the order by shape alone.
"""

from typing import Any, Callable, Dict, List, Optional

import torch
from torch import Tensor

Trial = Callable[[int], Tensor]
"""The bits that a model computes for a number of copies of one row: shape `(rows, numbers)`."""

_PARTS, _FIRST_PARTS = 8, 4
"""Into how many parts the rows are divided at least, some of which are left out."""
_KERNEL = 4
"""Sizes are multiples of it, as the kernels' are."""
_RICH = 200
"""In batches: how much has to be saved before more is tried."""
_FIRST_TRIALS = 8
"""In batches: what may be tried before anything has been saved."""
_MAX_SHAPES = 500
"""What is learnt of more than that is forgotten too late to be of use."""


class RowLayouts:
    """
    Chooses which rows a model computes, and in which order.

    # Parameters

    exact : `bool`, optional (default = `True`)
        Whether each row has to get the bits that it has among all. Else nothing is tried, and last
        digits may differ, as they do between batches of different sizes.
    trial_cost : `float`, optional (default = `1.0`)
        What it costs to try a row, as a part of what it costs to compute one.
    """

    def __init__(self, exact: bool = True, trial_cost: float = 1.0) -> None:
        self._exact = exact
        self._trial_cost = trial_cost
        self._known: Dict[Any, "_Kinds"] = {}
        self._rows_tried = 0.0
        self._rows_saved = 0

    def choose(
        self, ended: Tensor, shapes: Any, new_trial: Callable[[], Trial]
    ) -> Optional[Tensor]:
        """
        # Parameters

        ended : `torch.Tensor`
            Shape `(rows,)`: the rows that are not needed.
        shapes : `Any`
            The shapes of the model's inputs, for which trials hold.
        new_trial : `Callable[[], Trial]`
            Makes a trial for these shapes.

        # Returns

        `Optional[torch.Tensor]`
            Shape `(fewer rows,)`: the rows to compute, in this order; `None` for all.
        """
        count, live = len(ended), int((~ended).sum())
        kinds = self._kinds(shapes, new_trial)
        part = self._part(count)
        for size in range(-(-live // part) * part, count, part):
            if kinds is None:
                return None
            if self._may_try(kinds, count, count) and self._may_try(kinds, size, count):
                rows = arrange(ended, kinds.of(count), kinds.of(size))
                if rows is not None:
                    self._rows_saved += count - size
                    return rows
        return None

    def _part(self, count: int) -> int:
        """Larger at first, where trials are dear, so that a few batches pay for them."""
        is_dear = self._trial_cost > 0.5 and self._rows_saved < _RICH * count
        part, parts = _KERNEL, _FIRST_PARTS if is_dear else _PARTS
        while 2 * part * parts <= count:
            part *= 2  # a power of two, so that batches of about one size have sizes in common
        return part

    def _kinds(self, shapes: Any, new_trial: Callable[[], Trial]) -> Optional["_Kinds"]:
        if not self._exact:
            return _ALIKE
        if shapes not in self._known and len(self._known) < _MAX_SHAPES:
            self._known[shapes] = _Kinds(new_trial())
        return self._known.get(shapes)

    def _may_try(self, kinds: "_Kinds", size: int, count: int) -> bool:
        """Trials may cost half of what they have brought."""
        if not kinds.has(size):
            tried = self._rows_tried + size * self._trial_cost
            if tried > self._rows_saved / 2 + _FIRST_TRIALS * count:
                return False
            self._rows_tried = tried
        return True


class _Kinds:
    """How each position is computed, by the number of rows: equal kinds give equal bits."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._examples: List[Tensor] = []
        """What a position of each kind computes."""
        self._tried: Dict[int, Tensor] = {}

    def has(self, size: int) -> bool:
        return size in self._tried

    def of(self, size: int) -> Tensor:
        if size not in self._tried:
            self._tried[size] = self._sort(self._trial(size))
        return self._tried[size]

    def _sort(self, numbers: Tensor) -> Tensor:
        kinds = numbers.new_full((len(numbers),), -1, dtype=torch.long)
        while bool((kinds < 0).any()):
            for kind, example in enumerate(self._examples):
                kinds[(numbers == example).all(1)] = kind
            unknown = (kinds < 0).nonzero().view(-1)
            if len(unknown):
                self._examples.append(numbers[unknown[0]].clone())
        return kinds


class _Alike(_Kinds):
    """Where last digits do not matter."""

    def has(self, size: int) -> bool:
        return True

    def of(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.long)


_ALIKE = _Alike(lambda size: torch.empty(0))


def arrange(ended: Tensor, before: Tensor, after: Tensor) -> Optional[Tensor]:
    """
    Gives each row that is needed a position that computes it as its own position does.

    # Parameters

    ended : `torch.Tensor`
        Shape `(rows,)`: the rows that are not needed.
    before : `torch.Tensor`
        Shape `(rows,)`: the kind of each row's own position.
    after : `torch.Tensor`
        Shape `(fewer rows,)`: the kinds of the positions there are.

    # Returns

    `Optional[torch.Tensor]`
        Shape `(fewer rows,)`: the row for each position, none of them twice; `None` if they do not
        fit.
    """
    live = (~ended).nonzero().view(-1)
    rows = torch.full_like(after, -1)
    for kind in before[live].unique():
        chosen = live[before[live] == kind]
        positions = (after == kind).nonzero().view(-1)
        if len(chosen) > len(positions):
            return None
        rows[positions[: len(chosen)]] = chosen
    free = (rows < 0).nonzero().view(-1)
    rows[free] = ended.nonzero().view(-1)[: len(free)]
    return rows


def bits(tensor: Tensor) -> Tensor:
    """Floats as integers, so that they are equal if all their bits are."""
    return tensor.contiguous().view(_INTEGERS[tensor.element_size()])


_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def spread(tensor: Tensor, rows: Tensor, count: int, dimension: int) -> Tensor:
    """Puts computed rows in their places among `count`; in the others are zeros."""
    shape = list(tensor.shape)
    shape[dimension] = count
    return tensor.new_zeros(shape).index_copy_(dimension, rows, tensor)
