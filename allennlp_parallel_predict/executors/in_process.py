"""Runs batches in the process itself, as `allennlp predict` does."""

import select
from collections import deque
from typing import Deque, List, Optional, Sequence

from allennlp.predictors import Predictor
from overrides import overrides

from allennlp_parallel_predict.common.errors import ModelStateError, SettingsError
from allennlp_parallel_predict.common.messages import Batch, BatchResult, WorkerOptions
from allennlp_parallel_predict.executors.base import Executor
from allennlp_parallel_predict.worker.worker import Worker


@Executor.register("in_process")
class InProcessExecutor(Executor):
    """
    One worker, in this process: for debugging, profiling, and comparison. What is raised here that
    is no `Exception`, such as an interrupt, is meant for the process and ends the run.

    # Parameters

    cuda_devices : `List[int]`, optional (default = `None`)
        The one GPU to use.
    """

    def __init__(self, cuda_devices: Optional[List[int]] = None) -> None:
        if cuda_devices and len(cuda_devices) > 1:
            raise SettingsError("executor.cuda_devices can name only one GPU for in_process")
        self.cuda_devices = cuda_devices or []
        self.loading_device = self.cuda_devices[0] if self.cuda_devices else -1
        self._waiting: Deque[Batch] = deque()
        self._worker: Optional[Worker] = None

    @overrides
    def start(
        self, predictor: Predictor, options: WorkerOptions, preserve_order: bool = True
    ) -> None:
        if self.state_change is not None:
            raise ModelStateError.of(
                self.state_change,
                "and in this process that state cannot be undone for the next input: give the "
                "inputs one by one, or use the executor process_pool",
            )
        self._worker = Worker(predictor, options, failures=Exception)

    @overrides
    def has_room(self) -> bool:
        return not self._waiting

    @overrides
    def is_idle(self) -> bool:
        return not self._waiting

    @overrides
    def submit(self, batch: Batch) -> None:
        self._waiting.append(batch)

    @overrides
    def collect(
        self, timeout: Optional[float] = None, wake: Sequence[int] = ()
    ) -> List[BatchResult]:
        if self._waiting:
            assert self._worker is not None, "start() comes before collect()"
            result = self._worker.predict(self._waiting.popleft())
            self.state_change = self.state_change or result.state_change
            return [result]
        if wake:
            select.select(wake, [], [], timeout)
        return []

    @overrides
    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()

    @overrides
    def describe(self) -> str:
        return "in this process"
