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

Trial = Callable[[int], List[bytes]]
"""What a model computes for a number of copies of one row, by position."""

_PARTS = 8
"""Sizes are tried in steps of such a part of all rows."""
_KERNEL = 4
"""Sizes are multiples of it, as the kernels' are."""
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
    """

    def __init__(self, exact: bool = True) -> None:
        self._exact = exact
        self._known: Dict[Any, "_Kinds"] = {}
        self._rows_tried = 0
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
        kinds = self._kinds(shapes, count, new_trial)
        part = _round_up(-(-count // _PARTS), _KERNEL)
        for size in range(_round_up(live, part), count, part):
            if kinds is None:
                return None
            if self._may_try(kinds, count, count) and self._may_try(kinds, size, count):
                rows = arrange(ended, kinds.of(count), kinds.of(size))
                if rows is not None:
                    self._rows_saved += count - size
                    return rows
        return None

    def _kinds(self, shapes: Any, count: int, new_trial: Callable[[], Trial]) -> Optional["_Kinds"]:
        if not self._exact:
            return _ALIKE
        if (shapes, count) not in self._known and len(self._known) < _MAX_SHAPES:
            self._known[shapes, count] = _Kinds(new_trial())
        return self._known.get((shapes, count))

    def _may_try(self, kinds: "_Kinds", size: int, count: int) -> bool:
        """Trials may cost half of what they have brought."""
        if not kinds.has(size):
            if self._rows_tried + size > self._rows_saved / 2 + _FIRST_TRIALS * count:
                return False
            self._rows_tried += size
        return True


class _Kinds:
    """How each position is computed, by the number of rows: equal kinds give equal bits."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial
        self._numbers: Dict[bytes, int] = {}
        self._tried: Dict[int, Tensor] = {}

    def has(self, size: int) -> bool:
        return size in self._tried

    def of(self, size: int) -> Tensor:
        if size not in self._tried:
            kinds = [
                self._numbers.setdefault(bits, len(self._numbers)) for bits in self._trial(size)
            ]
            self._tried[size] = torch.tensor(kinds)
        return self._tried[size]


class _Alike(_Kinds):
    """Where last digits do not matter."""

    def has(self, size: int) -> bool:
        return True

    def of(self, size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.long)


_ALIKE = _Alike(lambda size: [])


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


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
