"""
What executors have in common whose workers can die.

A batch is a task that waits, is in a worker's hands, is tried again or taken apart if that worker
dies, and is settled once.
"""

import logging
import sys
from collections import deque
from typing import Deque, Dict, List, Optional, Sequence, Set, Union

from allennlp.predictors import Predictor
from overrides import overrides

from allennlp_parallel_predict.common.errors import (
    ModelStateError,
    SettingsError,
    WorkerDied,
    WorkerError,
    check_at_least,
)
from allennlp_parallel_predict.common.messages import Batch, BatchResult, Failure, WorkerOptions
from allennlp_parallel_predict.common.remote_errors import RemoteError
from allennlp_parallel_predict.common.recorder import current, stage
from allennlp_parallel_predict.common.serialization import load_result
from allennlp_parallel_predict.common.stages import RECEIVING
from allennlp_parallel_predict.executors.base import Executor
from allennlp_parallel_predict.executors.inflight_window import InflightWindow
from allennlp_parallel_predict.executors.retries import (
    LossLimit,
    PoisonIsolation,
    Task,
    failed_result,
    ordinal,
)
from allennlp_parallel_predict.executors.state_probe import StateProbe
from allennlp_parallel_predict.executors.base_pool import (
    BaseWorkerPool,
    WorkerDeath,
    WorkerHandle,
)
from allennlp_parallel_predict.models.state import stateful_encoder

logger = logging.getLogger(__name__)

_WINDOW = 16
"""Batches per worker that may lie between the oldest unfinished one and the newest."""
_RUN_AHEAD = 3
"""The same for each batch that is in work, if that is more."""
_MAX_HELD_BYTES = 64 << 20


class SupervisedExecutor(Executor):
    """
    The base of executors with workers that are watched and replaced. Who they are and how they are
    talked to is up to the pool of a subclass.

    # Parameters

    num_workers : `int`, optional (default = `None`)
        The number of workers; by default as many as the subclass finds room for.
    batch_timeout : `float`, optional (default = `None`)
        The seconds after which a worker is killed and its batch tried again.
    max_retries : `int`, optional (default = `1`)
        How often a batch whose worker died is tried again before its inputs are tried one by one.
    allow_stateful_model : `bool`, optional (default = `False`)
        Whether a model whose output depends on the batches before may still run in several
        workers, so that the output differs from `allennlp predict`'s.
    max_deaths : `int`, optional (default = `3`)
        How often in a row a worker may die while it loads or waits, and the inputs that no worker
        may survive before any batch is finished: more end the run with an error.

    # Raises

    `SettingsError`
        If a setting has a value that it cannot have.
    """

    _pool: BaseWorkerPool
    """From `start` on."""

    def __init__(
        self,
        num_workers: Optional[int] = None,
        batch_timeout: Optional[float] = None,
        max_retries: int = 1,
        allow_stateful_model: bool = False,
        max_deaths: int = 3,
    ) -> None:
        check_at_least(1, "executor.", num_workers=num_workers, max_deaths=max_deaths)
        check_at_least(0, "executor.", max_retries=max_retries)
        check_over_0(batch_timeout=batch_timeout)
        self._batch_timeout = batch_timeout
        self._max_retries = max_retries
        self._allow_stateful_model = allow_stateful_model
        self._max_deaths = max_deaths
        self._is_running = False

    def _begin(self, predictor: Predictor, options: WorkerOptions, preserve_order: bool) -> None:
        """The first step of `start`: from here on the number of workers is known."""
        self._preserve_order = preserve_order
        self._on_error = options.on_error
        self._first_number: Optional[int] = None
        self._losses = LossLimit(self._max_deaths)
        encoder = stateful_encoder(predictor._model)
        if encoder is not None:
            self._note_state(f"its module {encoder} is stateful")
            if self.state_change is not None and self.num_workers > 1:
                self._keep_in_order()
        self._probe = StateProbe(self.num_workers > 1 and not self._allow_stateful_model)
        self._forget_tasks()

    def _forget_tasks(self) -> None:
        self._waiting: Deque[Task] = deque()
        self._in_work = 0
        self._abandoned: Dict[int, Set[int]] = {}
        width, size = _WINDOW * self.num_workers, _MAX_HELD_BYTES
        if not self._preserve_order:
            width = size = sys.maxsize
        self._window = InflightWindow(width, size)

    def _note_state(self, change: str) -> None:
        if not self._allow_stateful_model:
            self.state_change = self.state_change or change

    def _keep_in_order(self) -> None:
        self.num_workers = 1
        logger.warning(
            "What this model predicts depends on the batches that it saw before (%s), so one "
            "worker predicts all of them in order, as `allennlp predict` does. If that does not "
            "matter to you, set executor.allow_stateful_model to true.",
            self.state_change,
        )

    @overrides
    def has_room(self) -> bool:
        most = self._pool.prefetch * self.num_workers + self._reserve()
        return self._in_work < most and self._window.is_open(_RUN_AHEAD * most)

    def _reserve(self) -> int:
        """One batch per worker waits for whoever is free first, so that all end at once."""
        return self.num_workers if self._preserve_order and self.num_workers > 1 else 0

    @overrides
    def is_idle(self) -> bool:
        return not self._window.batches

    @overrides
    def submit(self, batch: Batch) -> None:
        if self._first_number is None:
            self._first_number = batch.number
        self._window.enter(batch)
        self._queue(Task(batch))
        self._pool.hand_out(self._waiting, self._reserve())

    @overrides
    def collect(
        self, timeout: Optional[float] = None, wake: Sequence[int] = ()
    ) -> List[BatchResult]:
        # First, so that the caller knows what is lost by now: each resumed run gets further.
        if self._first_number not in self._window.batches:
            self._losses.check()
        self._pool.hand_out(self._waiting, self._reserve())
        pool, results = self._pool, []
        for worker, task, message, death in pool.wait(timeout, wake):
            if pool is not self._pool:
                break  # one worker starts over
            if task is not None:
                results += self._after_work(worker, task, message)
            elif death is not None and worker in pool.workers:
                results += self._after_death(worker, death)
        self._pool.hand_out(self._waiting, self._reserve())
        return results

    def _after_work(
        self, worker: WorkerHandle, task: Task, message: Union[bytes, memoryview]
    ) -> List[BatchResult]:
        self._in_work -= 1
        try:
            with stage(RECEIVING):
                current().count_received(len(message))
                result = load_result(message)
        except Exception as error:
            return self._charge(task, WorkerDied(f"a worker sent no result ({error!r})"))
        if result.state_change is not None:
            self._note_state(result.state_change)
            if self.state_change is not None:
                self._pool.keep_processes()
        self._losses.count_work()
        return self._deliver(task, self._examined(worker, result), len(message))

    def _examined(self, worker: WorkerHandle, result: BatchResult) -> BatchResult:
        """For subclasses: looks at a result before it is taken to where it belongs."""
        return result

    def _queue(self, *tasks: Task, first: bool = False) -> None:
        self._in_work += len(tasks)
        if first:
            self._waiting.extendleft(reversed(tasks))
        else:
            self._waiting.extend(tasks)

    def _deliver(self, task: Task, result: BatchResult, size: int) -> List[BatchResult]:
        """Takes the result of a task to where it belongs; returns what may leave the executor."""
        whole = result if task.isolation is None else task.isolation.add(task, result)
        return [] if whole is None else self._release(whole, size)

    def _release(self, result: BatchResult, size: int) -> List[BatchResult]:
        """A batch is finished; returns what may leave the executor."""
        if result.state_change and self.num_workers > 1 and not self._allow_stateful_model:
            if not self._pool.restarts:
                self.state_change = None  # what comes before has been predicted without it
            first = self._window.batches[result.number].describe()
            raise ModelStateError(
                f"what this model predicts depends on the batches that it saw before: "
                f"{result.state_change}, for the first time in {first}. Go on with --resume and "
                "--num-workers 1; or, if no output depends on it, as on a cache, with "
                "executor.allow_stateful_model: true"
            )
        self._window.leave(result.number, size)
        self._abandoned.pop(result.number, None)
        return [result]

    def _after_death(self, worker: WorkerHandle, death: WorkerDeath) -> List[BatchResult]:
        """Puts another worker in the place of one that has died."""
        error, suspect, is_exonerated = death
        if self.state_change is not None and worker.finished:
            raise ModelStateError(
                f"{error}. What this model predicts depends on the batches that it saw before "
                f"({self.state_change}), and that state is lost: start the run again"
            )
        if suspect is None and not is_exonerated:
            worker.deaths_in_a_row += 1
        others = [task for task in worker.tasks if task is not suspect]
        self._in_work -= len(worker.tasks)
        worker.tasks.clear()
        self._queue(*others, first=True)
        if worker.deaths_in_a_row >= self._max_deaths:
            raise WorkerDied(
                f"{error}; it is the {ordinal(self._max_deaths)} time in a row, so the run ends "
                "here"
            )
        logger.warning("%s; it is replaced", error)
        self._pool.replace(worker)
        # Last, as it may end this pool: where an input of the batch has shown that the model keeps
        # state, one worker starts over.
        return self._charge(suspect, error) if suspect is not None else []

    def _charge(self, task: Task, error: WorkerError) -> List[BatchResult]:
        """The worker died over this task: tries it again, takes it apart, or gives it up."""
        task.deaths += 1
        abandoned = self._abandoned.get(task.batch.number, set())
        if task.deaths <= self._max_retries and not abandoned:
            self._queue(task, first=True)
            return []
        if task.isolation is None and len(task.batch.values) > 1:
            tasks = PoisonIsolation(task.batch).tasks
        else:
            tasks = [task]
            abandoned = abandoned | ({task.offset} if task.deaths > self._max_retries else set())
        self._queue(*(t for t in tasks if t.offset not in abandoned), first=True)
        results: List[BatchResult] = []
        for lost in (t for t in tasks if t.offset in abandoned):
            failure = Failure(0, RemoteError.of(error))
            results += self._deliver(lost, failed_result(lost.batch, failure, self._on_error), 0)
            self._losses.count_loss(error)
        return results

    @overrides
    def abandon(self, number: int, offsets: Sequence[int]) -> None:
        if number in self._window.batches:
            self._abandoned.setdefault(number, set()).update(offsets)

    @overrides
    def close(self) -> None:
        if self._is_running:
            self._is_running = False
            self._pool.close()

    @overrides
    def kill(self) -> None:
        if self._is_running:
            self._is_running = False
            self._pool.kill()

    def _describe_workers(self, how: str, number: int) -> str:
        return f"{number} worker{'s' * (number != 1)} ({how})"


def check_over_0(**values: Optional[float]) -> None:
    for key, value in values.items():
        if value is not None and value <= 0:
            raise SettingsError(f"executor.{key} must be over 0, but it is {value}")
