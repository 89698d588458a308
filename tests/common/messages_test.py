"""What a batch says of itself, and what a worker gets of it."""

import pytest

from allennlp_parallel_predict.common.messages import Batch, BatchKind, OnError, are_consecutive

BATCH = Batch(7, BatchKind.LINES, ["a\n", "b\n", "c\n"], [3, 4, 5], [10, 12, 13])


def test_a_worker_knows_the_positions_if_they_follow_each_other():
    assert Batch.of_message(*BATCH.to_message()) == (
        7,
        BatchKind.LINES,
        BATCH.values,
        range(3, 6),
        (),
        True,
        None,
    )
    sorted_by_length = BATCH._replace(positions=[5, 3, 4])
    assert Batch.of_message(*sorted_by_length.to_message()).positions == ()


@pytest.mark.parametrize(
    "positions, expected",
    [([3, 4, 5], True), ([3], True), ([3, 5], False), ([], False)]
    + [(range(2, 9), True), (range(2, 9, 2), False), (range(0), False)],
)
def test_consecutive(positions, expected):
    assert are_consecutive(positions) is expected


@pytest.mark.parametrize(
    "lines, expected",
    [([4], "input line 4"), ([4, 6, 5], "input lines 4-6"), ([4, 90, 5], "3 of input lines 4-90")],
)
def test_what_messages_call_it(lines, expected):
    assert BATCH._replace(line_numbers=lines).describe() == expected
    from_python = BATCH._replace(kind=BatchKind.JSON, line_numbers=lines)
    assert from_python.describe() == expected.replace("input line", "input")


def test_one_input_of_it():
    alone = BATCH.only(1)
    assert (alone.values, alone.positions, alone.line_numbers) == (["b\n"], [4], [12])
    assert alone.text(0) == "b" and BATCH._replace(values=[{}]).text(0) == "(dict)"


def test_kinds():
    assert [kind for kind in BatchKind if kind.returns_text] == ["lines", "reader_instances"]
    assert [kind for kind in BatchKind if kind.is_one_call] == ["json_batch", "instance_batch"]
    assert f"{OnError.SKIP}" == str(OnError.SKIP) == "skip"
