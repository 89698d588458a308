"""
Which rows of a batch can be computed without the others, to the same bits.

A matrix product may sum in another order for its last few rows, or when there are few of them. So
numbers of rows are tried before they are used: a model is run on copies of one row, and of others
until many hundreds of numbers are known, as two orders often give the same number. The positions
that give the same bits, with this number of rows or another, are computed in the same order; and
that holds for all data of these shapes, as kernels choose the order by shape alone.
"""

from collections import OrderedDict
from typing import Callable, Dict, Hashable, Optional, Set

import torch
from torch import Tensor

from allennlp_parallel_predict.accelerate.packed_weights import is_packed

Probe = Callable[[int], Tensor]
"""What a model computes for a number of copies of one row: the fingerprints by position."""

_PARTS, _FIRST_PARTS = 8, 4
"""Into about how many parts the rows are divided, some of which are left out."""
_KERNEL = 4
"""Sizes are multiples of it, as the kernels' are."""
_RICH, _FIRST_TRIALS = 200, 8
"""In times all rows of a call: what has to be saved before more is tried, and what may be tried
before anything has been saved."""
KNOWN_PACKAGES = ("allennlp", "allennlp_models", "transformers")
"""Whose models give the same when they are asked twice, and keep nothing of an input for later or
while they predict another."""
_MAX_KINDS = 100
_MAX_SHAPES = 100
"""The oldest are forgotten."""


class RowInvariance:
    """
    Chooses which rows a model computes, and in which order. If `exact`, each row gets the bits that
    it has among all; else nothing is tried, and last digits may differ, as they do between batches
    of different sizes.
    """

    def __init__(self, exact: bool = True) -> None:
        self._exact = exact
        self._known: "OrderedDict[Hashable, EquivalenceClasses]" = OrderedDict()
        self._rows_tried = 0.0
        self._rows_saved = 0

    def choose(
        self,
        ended: Tensor,
        shapes: Hashable,
        new_trial: Callable[[], Probe],
        trial_cost: float = 1.0,
    ) -> Optional[Tensor]:
        """
        The rows to compute, in this order; `None` for all.

        # Parameters

        ended : `torch.Tensor`
            Shape `(rows,)`: the rows that are not needed.
        shapes : `Hashable`
            The shapes of the model's inputs, for which trials hold.
        new_trial : `Callable[[], Probe]`
            Makes a trial for these shapes.
        trial_cost : `float`, optional (default = `1.0`)
            What it costs to try a row, as a part of what it costs to compute one.
        """
        count, live = len(ended), int((~ended).sum())
        part = self._part(count, trial_cost)
        # To leave out less than that is not worth the copies.
        sizes = range(-(-live // part) * part, count - max(1, count // 8) + 1, part)
        if not sizes:
            return None
        if not self._exact:
            return assign_rows(ended, _alike(count), _alike(sizes[0]))
        kinds = self._kinds(shapes)
        for size in sizes:
            are_known = all(
                self._try(kinds, tried, count, new_trial, trial_cost) for tried in (count, size)
            )
            if are_known and kinds.meet(count, size):
                rows = assign_rows(ended, kinds.tried[count], kinds.tried[size])
                if rows is not None:
                    self._rows_saved += count - size
                    return rows
        return None

    def _part(self, count: int, trial_cost: float) -> int:
        """Larger at first, where trials are dear, so that a few batches pay for them."""
        is_dear = self._exact and trial_cost > 0.5 and self._rows_saved < _RICH * count
        part, parts = _KERNEL, _FIRST_PARTS if is_dear else _PARTS
        while 2 * part * parts <= count:
            part *= 2  # a power of two, so that batches of about one size have sizes in common
        return part

    def _kinds(self, shapes: Hashable) -> "EquivalenceClasses":
        kinds = self._known.setdefault(shapes, EquivalenceClasses())
        self._known.move_to_end(shapes)
        if len(self._known) > _MAX_SHAPES:
            self._known.popitem(last=False)
        return kinds

    def _try(
        self,
        kinds: "EquivalenceClasses",
        size: int,
        count: int,
        new_trial: Callable[[], Probe],
        trial_cost: float,
    ) -> bool:
        """Trials may cost half of what they have brought."""
        if size not in kinds.tried:
            tried = self._rows_tried + size * trial_cost
            if tried > self._rows_saved / 2 + _FIRST_TRIALS * count:
                return False
            self._rows_tried = tried
            kinds.run(size, new_trial)
        return True


class EquivalenceClasses:
    """How each position is computed, by the number of rows: equal kinds give equal bits."""

    def __init__(self) -> None:
        self.tried: Dict[int, Tensor] = {}
        self._trial: Optional[Probe] = None
        self._numbers: Dict[int, int] = {}
        self._kinds_of: Dict[int, Set[int]] = {}

    def run(self, size: int, new_trial: Callable[[], Probe]) -> None:
        if self._trial is None:
            self._trial = new_trial()
        kinds = [
            self._numbers.setdefault(fingerprint, len(self._numbers))
            for fingerprint in self._trial(size).tolist()
        ]
        self.tried[size] = torch.tensor(kinds)
        # With so many kinds, the rows depend on each other or on chance.
        self._kinds_of[size] = set(kinds) if len(self._numbers) <= _MAX_KINDS else set()

    def meet(self, size: int, other: int) -> bool:
        return not self._kinds_of[size].isdisjoint(self._kinds_of[other])


def assign_rows(ended: Tensor, before: Tensor, after: Tensor) -> Optional[Tensor]:
    """
    Gives each row that is needed a position that computes it as its own position does: `before` has
    the kind of each row's own position, `after` the kinds of the positions there are. Returns the
    row for each of them, none twice; `None` if they do not fit.
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


def _alike(size: int) -> Tensor:
    return torch.zeros(size, dtype=torch.long)


def fingerprints(results: Tensor) -> Tensor:
    """A number for each row of `results`, which is the same only where all bits are."""
    numbers = results.reshape(len(results), -1)
    if numbers.is_floating_point():
        numbers = numbers.contiguous().view(_INTEGERS[numbers.element_size()])
    factors = torch.randint(1 << 40, (numbers.size(1),), generator=own_random_numbers()) * 2 + 1
    return torch.cat([(part.long() * factors).sum(1) for part in numbers.split(512)])


def own_random_numbers() -> torch.Generator:
    """The same each time; the user's stay the user's."""
    return torch.Generator().manual_seed(0)


_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def scatter_rows(tensor: Tensor, rows: Tensor, count: int, dimension: int) -> Tensor:
    """Puts computed rows in their places among `count`; in the others are zeros."""
    shape = list(tensor.shape)
    shape[dimension] = count
    return tensor.new_zeros(shape).index_copy_(dimension, rows, tensor)


def is_row_by_row(module: torch.nn.Module, *packages: str) -> bool:
    """
    Whether a model is made of nothing but torch's modules and those of `packages`, which compute
    each row by itself and the same each time. Quantized ones look at all rows, and others at
    whatever they like.
    """
    known = ("torch.nn.modules.", *(f"{package}." for package in packages))
    return all(
        f"{type(part).__module__}.".startswith(known)
        and ("forward" not in vars(part) or is_packed(part))
        and not isinstance(part, torch.nn.modules.batchnorm._BatchNorm)
        for part in module.modules()
    )


def is_watched(*modules: torch.nn.Module) -> bool:
    """Whether somebody looks inside, as `Predictor.capture_model_internals` does."""
    everywhere = torch.nn.modules.module
    if everywhere._global_forward_hooks or everywhere._global_forward_pre_hooks:
        return True
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)
