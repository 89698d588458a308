"""What happens to a batch whose worker died."""

from typing import Dict, Iterable, Optional

from allennlp_parallel_predict.common.errors import WorkerDied, WorkerError
from allennlp_parallel_predict.common.messages import Batch, BatchResult, Failure, OnError
from allennlp_parallel_predict.common.serialization import dumps


class Task:
    """A batch on its way to a worker; `offset` is its place in the `isolation` that it is of."""

    def __init__(
        self, batch: Batch, isolation: "Optional[PoisonIsolation]" = None, offset: int = 0
    ) -> None:
        self.batch = batch
        self.isolation = isolation
        self.offset = offset
        self.deaths = 0
        self.is_alone = False
        """Whether it is predicted by itself, so that it is clear what a worker died over."""

    def message(self) -> bytes:
        """What a worker gets."""
        return dumps((*self.batch.to_message(), self.is_alone))


def count_inputs(tasks: Iterable[Task]) -> int:
    # A copy is made at once: in a service, another thread than the executor's asks.
    return sum(len(task.batch.values) for task in list(tasks))


class PoisonIsolation:
    """Tries the inputs of a batch one by one, so that only a poisonous one is lost."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.tasks = [Task(batch.only(i), self, i) for i in range(len(batch.values))]
        self._results: Dict[int, BatchResult] = {}

    def add(self, task: Task, result: BatchResult) -> Optional[BatchResult]:
        """Takes the result of one input; returns the batch's when it was the last."""
        self._results[task.offset] = result
        if len(self._results) < len(self.tasks):
            return None
        return self._merged()

    def _merged(self) -> BatchResult:
        results = [self._results[offset] for offset in range(len(self.tasks))]
        failures = [f._replace(offset=n) for n, r in enumerate(results) for f in r.failures]
        fatals = [r.fatal._replace(offset=n) for n, r in enumerate(results) if r.fatal is not None]
        if fatals:
            results = results[: fatals[0].offset]
        descriptions = None
        if any(result.descriptions for result in results):
            descriptions = [(result.descriptions or [None])[0] for result in results]
        printed = {n: "".join(r.printed.values()) for n, r in enumerate(results) if r.printed}
        return BatchResult(
            self.batch.number,
            [result.outputs[0] if result.outputs else None for result in results],
            descriptions,
            printed or None,
            failures,
            fatals[0] if fatals else None,
            next((r.state_change for r in results if r.state_change), None),
        )


class LossLimit:
    """
    Ends a run whose model can never work: once `max_losses` inputs are lost before any batch is
    finished. After that, inputs may kill their workers as often as they like: they are bad lines.
    """

    def __init__(self, max_losses: int) -> None:
        self._max_losses = max_losses
        self._losses = 0
        self._has_worked = False
        self._last: Optional[WorkerError] = None

    def count_work(self) -> None:
        """A worker has finished a batch."""
        self._has_worked = True

    def count_loss(self, error: WorkerError) -> None:
        """No worker survives some input."""
        self._losses += 1
        self._last = error

    def check(self) -> None:
        """Raises `WorkerDied` if the limit is reached."""
        if not self._has_worked and self._losses >= self._max_losses:
            raise WorkerDied(
                f"{self._last}; that was the {ordinal(self._losses)} input, and none could be "
                f"predicted, so the run ends here (executor.max_deaths is {self._max_losses})"
            )


def ordinal(number: int) -> str:
    return {1: "first", 2: "second", 3: "third"}.get(number, f"{number}th")


def failed_result(batch: Batch, failure: Failure, on_error: OnError) -> BatchResult:
    """The result of a batch of one input that no worker survives."""
    if on_error == OnError.RAISE:
        return BatchResult(batch.number, fatal=failure)
    return BatchResult(batch.number, failures=[failure])
