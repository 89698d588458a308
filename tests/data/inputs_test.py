"""Inputs in blocks."""

import pickle

from allennlp_parallel_predict.data.inputs import Input, InvalidInput, in_blocks


def test_blocks_keep_the_order_and_the_pauses():
    inputs = [Input(n, 2 * n + 1, f"{n}\n") for n in range(5)]
    first, pause, second, last = in_blocks([*inputs[:3], None, *inputs[3:]], 2)
    assert (first.values, first.positions, first.line_numbers) == (["0\n", "1\n"], [0, 1], [1, 3])
    assert pause is None  # the block that is not full waits for what comes
    assert (second.positions, last.positions) == ([2, 3], [4])


def test_an_invalid_input_keeps_its_problem_on_the_way():
    invalid = pickle.loads(pickle.dumps(InvalidInput.of("a,b", "too few columns")))
    assert (invalid, invalid.problem) == ("a,b", "too few columns")
