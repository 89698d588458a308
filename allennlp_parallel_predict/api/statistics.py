"""The counts and times of a predictor."""

import time
from collections import deque
from typing import Counter, Deque, Dict, List, NamedTuple

from allennlp_parallel_predict.api.request_queue import Request
from allennlp_parallel_predict.common.messages import BatchResult
from allennlp_parallel_predict.common.metrics import SIZES, Histogram, Metrics

_RECENT = 1000
"""The calls over which the quantiles of latencies are taken."""


class Statistics(NamedTuple):
    """
    The counts and times of a predictor so far.

    # Examples

    ```python
    predictor.statistics().waiting  # the inputs that no worker has yet
    ```
    """

    workers: int
    """Workers that are alive."""
    restarts: int
    """Workers that were replaced because they died or were too slow."""
    waiting: int
    """Inputs that no worker has yet."""
    in_work: int
    """Batches that workers have."""
    inputs: int
    """Inputs that are finished."""
    failures: int
    """Those of them that failed."""
    batch_sizes: Dict[int, int]
    """How many batches of each size there were."""
    latencies: Dict[str, float]
    """Seconds from a call to its result, of the last 1000 calls: `"p50"`, `"p95"`, `"p99"`."""
    batch_seconds: Histogram
    """Seconds from the submission of a batch to its result."""
    call_seconds: Histogram
    """Seconds from a call to its result."""

    def metrics(self) -> Metrics:
        """The values under the names that `/metrics` has for them."""
        batch_inputs = Histogram(SIZES)
        for size, count in self.batch_sizes.items():
            batch_inputs.observe(size, count)
        return Metrics(
            self.inputs,
            self.failures,
            self.restarts,
            self.workers,
            self.waiting,
            self.batch_seconds,
            batch_inputs,
            self.call_seconds,
        )


class Counts:
    """Adds up what the dispatcher's thread finishes; any thread may ask for `statistics`."""

    def __init__(self) -> None:
        self.inputs = 0
        self._failures = 0
        self._batch_sizes: Counter[int] = Counter()
        self._latencies: Deque[float] = deque(maxlen=_RECENT)
        self._batch_seconds = Histogram()
        self._call_seconds = Histogram()

    def add_batch(self, result: BatchResult, requests: List[Request]) -> None:
        size = sum(len(request.values) for request in requests)
        self.inputs += size
        self._failures += size if result.fatal is not None else len(result.failures)
        self._batch_sizes[size] += 1
        self._batch_seconds.observe(time.monotonic() - requests[0].submitted_at)

    def add_request(self, request: Request) -> None:
        seconds = time.monotonic() - request.since
        self._latencies.append(seconds)
        self._call_seconds.observe(seconds)

    def statistics(self, workers: int, restarts: int, waiting: int, in_work: int) -> Statistics:
        latencies = sorted(self._latencies)
        at = {f"p{p}": latencies[len(latencies) * p // 100] for p in (50, 95, 99) if latencies}
        return Statistics(
            workers,
            restarts,
            waiting,
            in_work,
            self.inputs,
            self._failures,
            dict(self._batch_sizes),
            at,
            self._batch_seconds,
            self._call_seconds,
        )
