"""What is counted, and under which names it is served."""

from allennlp_parallel_predict.api.request_queue import Request
from allennlp_parallel_predict.api.statistics import Counts
from allennlp_parallel_predict.common.errors import WorkerDied
from allennlp_parallel_predict.common.messages import BatchKind, BatchResult, Failure
from allennlp_parallel_predict.common.remote_errors import RemoteError

FAILURE = Failure(0, RemoteError.of(WorkerDied("it died")))


def request_of(count):
    return Request(BatchKind.JSON, [b""] * count)


def counted():
    counts = Counts()
    for result, sizes in (
        (BatchResult(0, [b""] * 3), [1, 2]),
        (BatchResult(1, [b"", None], failures=[FAILURE]), [2]),
        (BatchResult(2, fatal=FAILURE), [2]),
    ):
        requests = [request_of(size) for size in sizes]
        counts.add_batch(result, requests)
        for request in requests:
            counts.add_request(request)
    return counts.statistics(workers=2, restarts=1, waiting=5, in_work=1)


def test_inputs_failures_and_sizes():
    statistics = counted()
    assert (statistics.inputs, statistics.failures) == (7, 3)
    assert statistics.batch_sizes == {3: 1, 2: 2}
    assert sum(statistics.batch_seconds.counts) == 3 and sum(statistics.call_seconds.counts) == 4
    assert list(statistics.latencies) == ["p50", "p95", "p99"]
    assert Counts().statistics(1, 0, 0, 0).latencies == {}


def test_metrics():
    metrics = counted().metrics()
    assert (metrics.lines, metrics.failures, metrics.restarts) == (7, 3, 1)
    assert (metrics.workers, metrics.queue_inputs) == (2, 5)
    assert metrics.batch_inputs.sum == 7 and sum(metrics.batch_inputs.counts) == 3
