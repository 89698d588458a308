"""Which rows are computed together, so that each gets the bits that it has among all."""

import random

import pytest
import torch

from allennlp_parallel_predict.accelerate.row_invariance import (
    RowInvariance,
    assign_rows,
    fingerprints,
)

SHAPES = ("hidden", (40, 8))


class Kernel:
    """What each position computes, and how often it was asked."""

    def __init__(self, kind):
        self.kind = kind
        self.sizes = []

    def __call__(self):
        return self.trial

    def trial(self, size):
        self.sizes.append(size)
        return torch.tensor([self.kind(position, size) for position in range(size)])


def even(position, size):
    return 7


def last_two(position, size):
    return int(position >= size - 2)


def by_size(position, size):
    return size


def ended(*live, count=40):
    rows = torch.ones(count, dtype=torch.bool)
    rows[list(live)] = False
    return rows


def test_the_rows_that_are_needed_and_some_more():
    rows = RowInvariance().choose(ended(3, 17, 30, 31, 5), SHAPES, Kernel(even)).tolist()
    assert len(rows) == 8
    assert rows[:5] == [3, 5, 17, 30, 31]
    assert len(set(rows)) == 8


def test_each_row_is_where_it_is_computed_as_before():
    kernel = Kernel(last_two)
    rows = RowInvariance().choose(ended(1, 38, 2), SHAPES, kernel).tolist()
    assert rows[:2] == [1, 2] and 38 in rows[-2:]


def test_more_rows_where_fewer_have_no_place():
    def kernel(position, size):
        return int(position >= size - size // 20)

    rows = RowInvariance().choose(ended(38, 39), SHAPES, Kernel(kernel))
    assert rows is None

    rows = RowInvariance().choose(ended(0, 39), SHAPES, Kernel(kernel)).tolist()
    assert len(rows) == 24 and rows[-1] == 39


def test_all_rows_where_each_size_is_computed_in_its_own_way():
    kernel = Kernel(by_size)
    assert RowInvariance().choose(ended(1, 2), SHAPES, kernel) is None
    assert 40 in kernel.sizes and 8 in kernel.sizes


def test_a_size_is_tried_once():
    layouts, kernel = RowInvariance(), Kernel(even)
    for _ in range(5):
        layouts.choose(ended(1, 2), SHAPES, kernel)
    assert sorted(kernel.sizes) == [8, 40]
    layouts.choose(ended(1, 2), ("hidden", (40, 9)), kernel)
    assert sorted(kernel.sizes) == [8, 8, 40, 40]


def test_trials_that_bring_nothing_come_to_an_end():
    layouts, kernel = RowInvariance(), Kernel(by_size)
    for length in range(100):
        assert layouts.choose(ended(*range(20)), ("hidden", (40, length)), kernel) is None
    assert sum(kernel.sizes) <= 8 * 40


def test_trials_that_pay_go_on():
    layouts, kernel = RowInvariance(), Kernel(even)
    for length in range(100):
        for _ in range(10):
            layouts.choose(ended(*range(5)), ("hidden", (40, length)), kernel)
    assert sum(kernel.sizes) == 100 * 48


def test_what_is_learnt_has_a_bound():
    layouts, kernel = RowInvariance(), Kernel(even)
    for length in [*range(1000), 999, 0]:
        assert layouts.choose(ended(1), length, kernel, 0.0) is not None
    assert len(kernel.sizes) == 2 * 1001  # the last one was known, and the first forgotten


def test_rows_that_depend_on_chance():
    def chance(position, size):
        return random.randrange(1 << 60)

    assert RowInvariance().choose(ended(1, count=400), SHAPES, Kernel(chance), 0.0) is None


def test_no_trial_is_made_that_may_not_be_run():
    layouts, made = RowInvariance(), []

    def new_trial():
        made.append(1)
        return Kernel(by_size).trial

    for length in range(100):
        layouts.choose(ended(*range(20)), length, new_trial)
    assert len(made) < 10


def test_little_is_not_left_out():
    assert RowInvariance().choose(ended(*range(36)), SHAPES, Kernel(even), 0.0) is None
    assert RowInvariance().choose(ended(*range(32)), SHAPES, Kernel(even), 0.0) is not None


@pytest.mark.parametrize("dtype", [torch.float, torch.double, torch.half, torch.long, torch.bool])
def test_fingerprints(dtype):
    rows = (torch.rand(600, 3, 5) * 9).to(dtype)
    rows[599] = rows[0]
    rows[1] = rows[0]
    rows[1, 2, 4] = not rows[0, 2, 4] if dtype is torch.bool else rows[0, 2, 4] + 1
    found = fingerprints(rows)
    assert found[0] == found[599] and found[0] != found[1]
    assert found.unique().numel() == rows.view(600, -1).float().unique(dim=0).size(0)


def test_fingerprints_see_the_sign_of_zero():
    assert fingerprints(torch.tensor([[0.0]])) != fingerprints(torch.tensor([[-0.0]]))


def test_nothing_is_tried_where_last_digits_do_not_matter():
    kernel = Kernel(by_size)
    rows = RowInvariance(exact=False).choose(ended(1, 2), SHAPES, kernel)
    assert len(rows) == 4 and not kernel.sizes


def test_trials_that_cost_little():
    layouts, kernel = RowInvariance(), Kernel(by_size)
    for length in range(100):
        layouts.choose(ended(*range(20)), length, kernel, 0.1)
    assert 40 * 40 < sum(kernel.sizes) <= 10 * 8 * 40


def test_sizes_are_finer_once_they_have_paid():
    layouts, kernel = RowInvariance(), Kernel(even)
    sizes = [len(layouts.choose(ended(1), SHAPES, kernel)) for _ in range(1000)]
    assert sizes[0] == 8 and sizes[-1] == 4
    cheap = RowInvariance().choose(ended(1), SHAPES, kernel, 0.1)
    assert len(cheap) == 4


def test_few_rows():
    for count in range(1, 12):
        rows = RowInvariance().choose(ended(0, count=count), SHAPES, Kernel(even))
        assert (rows is None) == (count <= 4)


def test_all_rows_are_needed():
    kernel = Kernel(even)
    assert RowInvariance().choose(ended(*range(39)), SHAPES, kernel) is None
    assert not kernel.sizes


@pytest.mark.parametrize("seed", range(20))
def test_arrange(seed):
    torch.manual_seed(seed)
    rows = torch.rand(30) < 0.7
    before, after = torch.randint(2, (30,)), torch.randint(2, (22,))
    arranged = assign_rows(rows, before, after)
    live = (~rows).nonzero().view(-1)
    fits = all((before[live] == kind).sum() <= (after == kind).sum() for kind in (0, 1))
    assert (arranged is not None) == fits
    if arranged is not None:
        assert len(set(arranged.tolist())) == 22 and set(live.tolist()) <= set(arranged.tolist())
        for position, row in enumerate(arranged.tolist()):
            assert rows[row] or before[row] == after[position]
