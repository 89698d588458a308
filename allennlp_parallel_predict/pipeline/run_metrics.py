"""What Prometheus can ask of a run: `--metrics`."""

import time
from typing import Dict, List, Optional

from allennlp_parallel_predict.common.messages import Batch, BatchResult
from allennlp_parallel_predict.common.metrics import SIZES, Histogram, Metrics, MetricsRegistry
from allennlp_parallel_predict.common.metrics_server import MetricsServer
from allennlp_parallel_predict.executors.base import Executor


class RunMetrics:
    """
    Counts what an executor does for a run, and answers who asks for it.

    # Parameters

    executor : `Executor`
        The executor, which is started before anybody is answered.
    address : `str`, optional (default = `None`)
        Where, as for `MetricsServer`; nowhere by default, and then nothing is counted.
    """

    def __init__(self, executor: Executor, address: Optional[str] = None) -> None:
        self._executor = executor
        self._server: Optional[MetricsServer] = None
        self._submitted: Dict[int, float] = {}
        self._lines = self._failures = 0
        self._batch_seconds, self._batch_inputs = Histogram(), Histogram(SIZES)
        if address is not None:
            self._server = MetricsServer(MetricsRegistry(self._read), address)

    @property
    def url(self) -> Optional[str]:
        return self._server.url if self._server is not None else None

    def submit(self, batch: Batch) -> None:
        """A batch is given to the executor."""
        if self._server is not None:
            self._submitted[batch.number] = time.monotonic()

    def finish(self, batch: Batch, result: BatchResult) -> None:
        """The result of a batch has come."""
        if self._server is not None:
            self._lines += len(batch.values)
            self._failures += len(result.failures) + (result.fatal is not None)
            self._batch_seconds.observe(time.monotonic() - self._submitted.pop(batch.number))
            self._batch_inputs.observe(len(batch.values))

    def _read(self) -> Metrics:
        alive, restarts, waiting = self._executor.counts()
        return Metrics(
            self._lines,
            self._failures,
            restarts,
            alive,
            waiting,
            self._batch_seconds,
            self._batch_inputs,
        )

    def filenos(self) -> List[int]:
        """The file descriptors of which one can be read when somebody asks."""
        return self._server.filenos() if self._server is not None else []

    def serve(self) -> None:
        """Answers who asks."""
        if self._server is not None:
            self._server.serve()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
