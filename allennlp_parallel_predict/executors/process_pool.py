"""
A pool of worker processes.

      submit                                                              collect
        │                                                                    ▲
        ▼           one socket a worker, both ways, nothing shared           │
    ┌─────────┐    ┌─────────────────────────────────────────────┐    ┌──────────────┐
    │  tasks  │ ─► │ worker 0: the batch it computes, one in hand │ ─► │   results    │
    │ waiting │ ─► │ worker 1: the batch it computes, one in hand │ ─► │ (held while  │
    └─────────┘    └─────────────────────────────────────────────┘    │  probing)    │
        ▲                      │ dies, or is too slow                 └──────────────┘
        └──────────────────────┘ replaced at once; its batches go back

The parent has one thread, which waits for all sockets at once. Each worker has a second batch in
hand while it computes the first, so that it never waits for the parent.
"""

import logging
import sys
from collections import deque
from contextlib import contextmanager
from functools import partial
from typing import Callable, Deque, Iterator, List, Optional, Sequence, Tuple

from allennlp.predictors import Predictor
from overrides import overrides

from allennlp_parallel_predict import tuning
from allennlp_parallel_predict.batching import Batch
from allennlp_parallel_predict.errors import (
    ModelStateError,
    RemoteError,
    SettingsError,
    WorkerDied,
    WorkerError,
    WorkerTimeout,
)
from allennlp_parallel_predict.executors.channel import dumps
from allennlp_parallel_predict.executors.crew import IN_HAND, Crew, Member, describe_end
from allennlp_parallel_predict.executors.executor import Executor, WorkerCounts
from allennlp_parallel_predict.executors.launcher import Launcher
from allennlp_parallel_predict.executors.retries import MAX_DEATHS_IN_A_ROW, Search, Task, lost
from allennlp_parallel_predict.executors.window import Window
from allennlp_parallel_predict.executors.worker_process import load_result
from allennlp_parallel_predict.model_state import stateful_encoder
from allennlp_parallel_predict.worker import BatchResult, Failure, WorkerOptions

logger = logging.getLogger(__name__)

_WINDOW = 16
"""Batches a worker that may lie between the oldest unfinished one and the newest."""
_MAX_HELD_BYTES = 64 << 20


@Executor.register("process_pool")
class ProcessPoolExecutor(Executor):
    """
    Worker processes on this machine, initialised once, that share one model.

    # Parameters

    num_workers : `int`, optional (default = `None`)
        The number of processes; by default the CPUs that this process may use (affinity and
        cgroup), or one per GPU.
    threads_per_worker : `int`, optional (default = `None`)
        The threads of torch in each; by default `OMP_NUM_THREADS`, or `cpus / num_workers` but at
        least 1.
    start_method : `str`, optional (default = `None`)
        `"fork"` or `"spawn"`; by default fork on Linux, but spawn with CUDA.
    share_model : `bool`, optional (default = `True`)
        Whether the workers have one copy of the parameters between them.
    cuda_devices : `List[int]`, optional (default = `None`)
        The GPUs that the workers are dealt out over.
    batch_timeout : `float`, optional (default = `None`)
        The seconds after which a worker is killed and its batch tried again.
    max_retries : `int`, optional (default = `1`)
        How often a batch whose worker died is tried again before its inputs are tried one by one.
    max_batches_per_worker : `int`, optional (default = `None`)
        The batches after which a worker is replaced, for models that leak memory.
    allow_stateful_model : `bool`, optional (default = `False`)
        Whether a model whose output depends on the batches before may still run in several
        workers, so that the output differs from `allennlp predict`'s.
    pin_cpus : `bool`, optional (default = `True`)
        Whether each worker stays on a CPU of its own, if there is one of one thread for each CPU.

    # Raises

    `SettingsError`
        If a setting has a value that it cannot have.
    """

    def __init__(
        self,
        num_workers: Optional[int] = None,
        threads_per_worker: Optional[int] = None,
        start_method: Optional[str] = None,
        share_model: bool = True,
        cuda_devices: Optional[List[int]] = None,
        batch_timeout: Optional[float] = None,
        max_retries: int = 1,
        max_batches_per_worker: Optional[int] = None,
        allow_stateful_model: bool = False,
        pin_cpus: bool = True,
    ) -> None:
        _check_at_least(1, num_workers=num_workers, threads_per_worker=threads_per_worker)
        _check_at_least(0, max_retries=max_retries)
        _check_at_least(1, max_batches_per_worker=max_batches_per_worker)
        if batch_timeout is not None and batch_timeout <= 0:
            raise SettingsError(f"executor.batch_timeout must be over 0, but is {batch_timeout}")
        self.cuda_devices = cuda_devices or []
        self._launcher = Launcher(
            threads_per_worker, start_method, share_model, self.cuda_devices, pin_cpus
        )
        self.num_workers = num_workers or len(self.cuda_devices or self._launcher.cpus)
        self._batch_timeout = batch_timeout
        self._max_retries = max_retries
        self._max_batches_per_worker = max_batches_per_worker
        self._allow_stateful_model = allow_stateful_model
        self._is_started = False

    @contextmanager
    @overrides
    def preparing(self) -> Iterator[None]:
        # The parent computes nothing; and threads of torch's would not survive the fork.
        with tuning.ready_to_fork():
            yield

    @overrides
    def start(self, predictor: Predictor, options: WorkerOptions) -> None:
        self._on_error = options.on_error
        encoder = stateful_encoder(predictor._model)
        if encoder is not None:
            self._note_state(f"its module {encoder} is stateful")
            if self.state_change is not None and self.num_workers > 1:
                self._keep_in_order()
        self._launcher.prepare(predictor, options)
        self._waiting: Deque[Task] = deque()
        self._in_work = 0
        self._held: List[Tuple[BatchResult, int]] = []
        self._is_probing = self.num_workers > 1 and not self._allow_stateful_model
        self._start_crew()
        self._is_started = True

    def _start_crew(self) -> None:
        width = _WINDOW * self.num_workers if self.keeps_order else sys.maxsize
        self._window = Window(width, _MAX_HELD_BYTES if self.keeps_order else sys.maxsize)
        self._crew = Crew(
            self.num_workers,
            partial(self._launcher.launch, self.num_workers),
            self._batch_timeout,
            self._max_batches_per_worker if self.state_change is None else None,
        )

    @overrides
    def threads(self) -> int:
        return self._launcher.threads(self.num_workers)

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
        return self._in_work < IN_HAND * self.num_workers and self._window.is_open()

    @overrides
    def is_idle(self) -> bool:
        return not self._window.batches

    @overrides
    def submit(self, batch: Batch) -> None:
        self._window.enter(batch)
        self._queue(Task(batch))
        self._hand_out()

    def _queue(self, *tasks: Task, first: bool = False) -> None:
        self._in_work += len(tasks)
        if first:
            self._waiting.extendleft(reversed(tasks))
        else:
            self._waiting.extend(tasks)

    def _hand_out(self) -> None:
        while self._waiting:
            member = self._crew.take_free()
            if member is None:
                return
            task = self._waiting.popleft()
            batch = task.batch
            self._crew.give(member, task, dumps((batch.number, batch.kind, batch.values)))

    @overrides
    def collect(
        self, timeout: Optional[float] = None, wake: Sequence[int] = ()
    ) -> List[BatchResult]:
        results: List[BatchResult] = []
        for event in self._crew.wait(timeout, wake):
            if event.member not in self._crew.members or event.process != event.member.process:
                continue  # of a crew, or a process, that has just been replaced
            if event.message is None:
                results += self._after_death(event.member)
            else:
                results += self._after_result(event.member, event.message)
        self._hand_out()
        return results

    def _after_result(self, member: Member, message: bytes) -> List[BatchResult]:
        result = load_result(message)
        if result.state_change is not None:
            self._note_state(result.state_change)
            if self.state_change is not None:
                self._crew.max_batches = None  # its state is in this process
        task = self._crew.finish_task(member)
        self._in_work -= 1
        return self._settle(task, result, len(message))

    def _settle(self, task: Task, result: BatchResult, size: int) -> List[BatchResult]:
        """Takes the result of a task to where it belongs; returns what may leave the pool."""
        if task.search is not None:
            merged = task.search.add(task, result)
            if merged is None:
                return []
            result = merged
        if self._is_probing:
            return self._probe(result, size)
        if result.state_change and self.num_workers > 1 and not self._allow_stateful_model:
            raise ModelStateError(
                f"what this model predicts depends on the batches that it saw before: "
                f"{result.state_change}, for the first time in "
                f"{self._window.batches[result.number].describe()}. Run it with --num-workers 1, "
                "or set executor.allow_stateful_model to true if that does not matter to you"
            )
        self._window.leave(result.number, size)
        return [result]

    def _probe(self, result: BatchResult, size: int) -> List[BatchResult]:
        """
        Holds results until the first batch is finished and shows whether the model keeps state. If
        it does, nothing has left the pool yet, and one worker starts over.
        """
        self._held.append((result, size))
        if result.state_change:
            self._start_over()
            return []
        if result.number != next(iter(self._window.batches)):
            return []
        self._is_probing = False
        for held, held_size in self._held:
            self._window.leave(held.number, held_size)
        results = [held for held, _ in self._held]
        self._held = []
        return results

    def _start_over(self) -> None:
        batches = list(self._window.batches.values())
        self._crew.kill()
        self._held, self._waiting, self._in_work = [], deque(), 0
        self._is_probing = False
        self._keep_in_order()
        self._start_crew()
        for batch in batches:
            self.submit(batch)

    def _after_death(self, member: Member) -> List[BatchResult]:
        error = self._death(member)
        if self.state_change is not None and member.finished:
            raise ModelStateError(
                f"{error}. What this model predicts depends on the batches that it saw before "
                f"({self.state_change}), and that state is lost: start the run anew"
            )
        task = member.task_to_blame()
        if task is None or (len(task.batch.values) == 1 and not task.deaths):
            member.deaths_in_a_row += 1
        others = [other for other in member.tasks if other is not task]
        self._in_work -= len(member.tasks)
        member.tasks.clear()
        self._queue(*others, first=True)
        results = self._blame(task, error) if task is not None else []
        if member.deaths_in_a_row >= MAX_DEATHS_IN_A_ROW:
            raise WorkerDied(f"{error}; it is the third time in a row, so the run ends here")
        logger.warning("%s; it is replaced", error)
        self._crew.replace(member)
        return results

    def _death(self, member: Member) -> WorkerError:
        where = "before it had its model"
        if member.is_ready:
            where = "between two batches"
            if member.tasks:
                where = f"while it predicted {member.tasks[0].batch.describe()}"
        if member.kill_at is not None:
            return WorkerTimeout(
                f"{member} was over the batch_timeout of {self._batch_timeout} s and was ended "
                + where
            )
        return WorkerDied(f"{member} {describe_end(member.process)} {where}")

    def _blame(self, task: Task, error: WorkerError) -> List[BatchResult]:
        """The worker died over this task: tries it again, takes it apart, or gives it up."""
        task.deaths += 1
        if task.deaths <= self._max_retries:
            self._queue(task, first=True)
            return []
        if task.search is None and len(task.batch.values) > 1:
            self._queue(*Search(task.batch).tasks, first=True)
            return []
        failure = Failure(0, RemoteError.of(error))
        return self._settle(task, lost(task.batch, failure, self._on_error), 0)

    @overrides
    def close(self) -> None:
        self._end(Crew.close)

    @overrides
    def kill(self) -> None:
        self._end(Crew.kill)

    def _end(self, how: Callable[[Crew], None]) -> None:
        if self._is_started:
            self._is_started = False
            how(self._crew)

    @overrides
    def counts(self) -> WorkerCounts:
        return WorkerCounts(len(self._crew.members), self._crew.restarts)

    @overrides
    def describe(self) -> str:
        workers = f"{self.num_workers} worker{'s' * (self.num_workers > 1)}"
        return f"{workers} ({self._launcher.describe(self.num_workers)})"


def _check_at_least(minimum: int, **values: Optional[int]) -> None:
    for key, value in values.items():
        if value is not None and value < minimum:
            raise SettingsError(f"executor.{key} must be at least {minimum}, but it is {value}")
