"""The results of a batch that was tried one by one."""

import pytest

from allennlp_parallel_predict.common.errors import WorkerDied
from allennlp_parallel_predict.common.messages import (
    Batch,
    BatchKind,
    BatchResult,
    Failure,
    OnError,
)
from allennlp_parallel_predict.common.remote_errors import RemoteError
from allennlp_parallel_predict.executors.retries import LossLimit, PoisonIsolation, failed_result

BATCH = Batch(7, BatchKind.LINES, ["a", "b", "c", "d"], [3, 4, 5, 6], [10, 12, 13, 14])
DIED = Failure(0, RemoteError.of(WorkerDied("it died")))


def merged(results, order=(2, 0, 3, 1)):
    isolation = PoisonIsolation(BATCH)
    for offset in order[:-1]:
        assert isolation.add(isolation.tasks[offset], results[offset]) is None
    return isolation.add(isolation.tasks[order[-1]], results[order[-1]])


def test_each_task_has_one_input():
    tasks = PoisonIsolation(BATCH).tasks
    assert [(t.offset, t.batch.values, t.batch.positions) for t in tasks] == [
        (n, [BATCH.values[n]], [BATCH.positions[n]]) for n in range(4)
    ]
    assert [t.batch.describe() for t in tasks] == [f"input line {n}" for n in (10, 12, 13, 14)]


def test_the_results_are_put_together():
    results = [
        BatchResult(7, ["A"], ["a"], {0: "said "}),
        failed_result(BATCH.only(1), DIED, OnError.SKIP),
        BatchResult(7, ["C"], ["c"], state_change="it counts"),
        BatchResult(7, ["D"], ["d"], {0: "and ", 1: "more"}),
    ]
    assert merged(results) == BatchResult(
        7,
        ["A", None, "C", "D"],
        ["a", None, "c", "d"],
        {0: "said ", 3: "and more"},
        [DIED._replace(offset=1)],
        None,
        "it counts",
    )


def test_nothing_comes_after_the_one_that_ends_the_run():
    results = [BatchResult(7, [letter]) for letter in "ABCD"]
    results[2] = failed_result(BATCH.only(2), DIED, OnError.RAISE)
    assert merged(results) == BatchResult(7, ["A", "B"], fatal=DIED._replace(offset=2))


class TestLossLimit:
    def test_a_model_that_never_works(self):
        limit = LossLimit(2)
        limit.count_loss(WorkerDied("worker 0 died"))
        limit.check()
        limit.count_loss(WorkerDied("worker 1 died"))
        with pytest.raises(WorkerDied, match="worker 1 died; that was the second input"):
            limit.check()

    def test_a_model_that_works_may_lose_any_number(self):
        limit = LossLimit(1)
        limit.count_work()
        for _ in range(10):
            limit.count_loss(WorkerDied("worker 0 died"))
            limit.check()
