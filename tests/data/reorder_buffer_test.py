import random

from allennlp_parallel_predict.common.messages import Batch, BatchKind, BatchResult, Failure
from allennlp_parallel_predict.common.remote_errors import RemoteError
from allennlp_parallel_predict.data.reorder_buffer import CompletedBatch, ReorderBuffer


def make_run(number, positions, fewer=0):
    values = [f"line {p}" for p in positions]
    outputs = [f"out {p}\n" for p in positions][: len(positions) - fewer]
    return CompletedBatch(
        Batch(number, BatchKind.LINES, values, positions, [p + 1 for p in positions]),
        BatchResult(number, outputs),
    )


def outputs_of(runs):
    return [output for run in runs for output in run.result.outputs]


def test_results_come_in_input_order_whatever_the_order_of_batches():
    random.seed(0)
    positions = list(range(60))
    for is_sorted in (True, False):
        order = ReorderBuffer()
        if not is_sorted:
            random.shuffle(positions)
        runs = [make_run(i, positions[i * 4 : i * 4 + 4]) for i in range(15)]
        random.shuffle(runs)
        released = [ready for run in runs for ready in order.add(run)]
        assert outputs_of(released) == [f"out {p}\n" for p in range(60)]
        assert order.next_position == 60


def test_a_batch_with_fewer_results_than_inputs_does_not_block_the_next():
    order = ReorderBuffer()
    assert list(order.add(make_run(1, [2, 3]))) == []
    released = list(order.add(make_run(0, [0, 1], fewer=1)))
    assert outputs_of(released) == ["out 0\n", "out 2\n", "out 3\n"]


def test_details_stay_with_their_input_when_a_batch_is_taken_apart():
    error = RemoteError("builtins", "KeyError", "x", "", None, None)
    batch = Batch(0, BatchKind.LINES, ["a", "b", "c"], [2, 0, 1], [3, 1, 2])
    result = BatchResult(
        0,
        ["out a", None, "out c"],
        ["in a", None, "in c"],
        {0: "printed a", 2: "printed c"},
        [Failure(1, error)],
    )
    zero, one, two = ReorderBuffer().add(CompletedBatch(batch, result))
    assert (zero.batch.values, zero.result.failures) == (["b"], [Failure(0, error)])
    assert (one.result.outputs, one.result.descriptions) == (["out c"], ["in c"])
    assert (one.result.printed, one.batch.line_numbers) == ({0: "printed c"}, [2])
    assert (two.result.outputs, two.result.printed) == (["out a"], {0: "printed a"})


def test_an_error_ends_a_run_at_the_first_input_without_a_result():
    batch = Batch(0, BatchKind.LINES, ["a", "b"], [1, 0], [2, 1])
    zero, one = ReorderBuffer().add(
        CompletedBatch(batch, BatchResult(0, ["out a"]), ValueError("b"))
    )
    assert isinstance(zero.error, ValueError) and zero.result.outputs == []
    assert one.error is None and one.result.outputs == ["out a"]
