"""
What a worker does with one batch. It knows no process and no pipe: every executor runs this code.

The calls to the predictor come in `allennlp predict`'s order: the whole batch is loaded, then
predicted, then each output is dumped just before its input is described.
"""

from typing import Iterator, Optional, Sequence, Type

from allennlp.predictors import Predictor

from allennlp_parallel_predict.accelerate.operation_batching import OperationBatcher
from allennlp_parallel_predict.common.messages import (
    Batch,
    BatchResult,
    WorkerOptions,
)
from allennlp_parallel_predict.models.state import InputCounters, ModelState
from allennlp_parallel_predict.worker.attempt import Attempt
from allennlp_parallel_predict.worker.join import Join
from allennlp_parallel_predict.worker.profiler import WorkerProfiler


class Worker:
    """
    Predicts batches with one predictor.

    # Parameters

    predictor : `Predictor`
        The predictor of the archive.
    options : `WorkerOptions`
        How to treat failures and what to send back.
    batcher : `OperationBatcher`, optional (default = `None`)
        The way to predict several batches at once.
    failures : `Type[BaseException]`, optional (default = `BaseException`)
        What a predictor may raise that is a failure of its input; anything else ends `predict`.

    # Examples

    ```python
    result = Worker(predictor, WorkerOptions()).predict(batch)
    ```
    """

    def __init__(
        self,
        predictor: Predictor,
        options: WorkerOptions,
        batcher: Optional[OperationBatcher] = None,
        failures: Type[BaseException] = BaseException,
    ) -> None:
        self._failures = failures
        self._predictor = predictor
        self._options = options
        self._batcher = batcher
        self._join = Join(options.join) if options.join is not None else None
        self.profiler: Optional[WorkerProfiler] = None
        if options.profile is not None:
            self.profiler = WorkerProfiler(predictor, options.profile)
        self._state = ModelState(predictor)
        self._counters = InputCounters(predictor)
        if self._counters:
            self._batcher = None  # each input has a number of its own

    def predict(self, batch: Batch) -> BatchResult:
        """
        Predicts one batch. It never raises: the predictor's exceptions are part of the result.
        """
        if self.profiler is None:
            return self._predict(batch)
        self.profiler.begin()
        result = self._predict(batch)
        return result._replace(profile=self.profiler.record())

    @property
    def most_at_once(self) -> int:
        """The number of batches of one input that are best predicted at once."""
        return max(1, self._batcher.size) if self._batcher is not None else 1

    def predict_at_once(self, batches: Sequence[Batch]) -> Iterator[BatchResult]:
        """Predicts several batches of one input, each as if by itself."""
        if self._batcher is None or len(batches) == 1:
            yield from map(self.predict, batches)
            return
        attempts = [self._attempt(batch) for batch in batches]
        self._batcher.run([attempt.run_captured for attempt in attempts])
        change = self._state_change()
        for batch, attempt in zip(batches, attempts):
            # What fails in a group may be well by itself: out of memory, at home in one thread.
            yield self.predict(batch) if attempt.has_failed() else attempt.result(change)

    def accept_changes(self) -> None:
        """Forgets what has changed since the last batch: it was not a batch that changed it."""
        self._state = ModelState(self._predictor)

    def close(self) -> None:
        """Leaves the predictor as it was."""
        if self.profiler is not None:
            self.profiler.close()

    def _predict(self, batch: Batch) -> BatchResult:
        attempt = self._attempt(batch)
        attempt.run_captured()
        return attempt.result(self._state_change())

    def _attempt(self, batch: Batch) -> Attempt:
        return Attempt(
            self._predictor, self._options, batch, self._counters, self._failures, self._join
        )

    def _state_change(self) -> Optional[str]:
        change = self._state.change() or self._counters.change()
        if change is not None:
            self._batcher = None  # what a batch leaves behind has to be there for the next one
        return change
