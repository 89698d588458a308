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
hand while it computes the first, so that it never waits for the parent. If batches are short it has
more of them, which come several in one message: to send each by itself, and to wake the worker for
it, would take longer than the work. Results come one by one in any case. So what a worker that died
was at is the first of which there is none; or, in lockstep, one of the next, which is then found
out by predicting each alone.
"""

from contextlib import contextmanager
from functools import partial
from typing import Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from allennlp.predictors import Predictor
from overrides import overrides

from allennlp_parallel_predict import tuning
from allennlp_parallel_predict.errors import WorkerDied, WorkerError, WorkerTimeout
from allennlp_parallel_predict.executors.channel import dumps
from allennlp_parallel_predict.executors.crew import Crew, Event, Member, describe_end
from allennlp_parallel_predict.executors.executor import Executor, WorkerCounts
from allennlp_parallel_predict.executors.launcher import Launcher
from allennlp_parallel_predict.executors.retries import MAX_DEATHS_IN_A_ROW
from allennlp_parallel_predict.executors.supervised import (
    IN_HAND,
    SupervisedExecutor,
    check_at_least,
)
from allennlp_parallel_predict.executors.worker_process import load_result
from allennlp_parallel_predict.lockstep import TOGETHER, layers_to_share
from allennlp_parallel_predict.model_state import stateful_encoder
from allennlp_parallel_predict.worker import BatchResult, WorkerOptions


@Executor.register("process_pool")
class ProcessPoolExecutor(SupervisedExecutor):
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
    lockstep : `bool`, optional (default = `None`)
        Whether lines that are predicted one by one pass the layers of a transformer together, each
        in a thread of its own; by default if all code is AllenNLP's and the layers are large
        enough. With `True`, also if the predictor, the reader or the model is not AllenNLP's: it
        must not keep anything of a line, nor hold a lock, while the model predicts. In any case
        only with one thread a worker, on CPUs, without a `batch_timeout` and a profile.

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
        lockstep: Optional[bool] = None,
    ) -> None:
        super().__init__(num_workers, batch_timeout, max_retries, allow_stateful_model)
        check_at_least(1, threads_per_worker=threads_per_worker)
        check_at_least(1, max_batches_per_worker=max_batches_per_worker)
        self.cuda_devices = cuda_devices or []
        self._launcher = Launcher(
            threads_per_worker, start_method, share_model, self.cuda_devices, pin_cpus
        )
        self.num_workers = num_workers or len(self.cuda_devices or self._launcher.cpus)
        self._max_batches_per_worker = max_batches_per_worker
        self._lockstep = lockstep
        self._is_started = False

    @contextmanager
    @overrides
    def preparing(self) -> Iterator[None]:
        # The parent computes nothing; and threads of torch's would not survive the fork.
        with tuning.ready_to_fork():
            yield

    @overrides
    def start(self, predictor: Predictor, options: WorkerOptions) -> None:
        self._begin(predictor, options)
        self._is_in_lockstep = self._may_lockstep(predictor, options)
        self._unclear_deaths = 0
        self._launcher.prepare(predictor, options._replace(lockstep=self._is_in_lockstep))
        self._held: List[Tuple[BatchResult, int]] = []
        self._is_probing = self.num_workers > 1 and not self._allow_stateful_model
        self._start_crew()
        self._is_started = True

    def _start_crew(self) -> None:
        self._crew = Crew(
            self.num_workers,
            partial(self._launcher.launch, self.num_workers),
            self._batch_timeout,
            self._max_batches_per_worker if self.state_change is None else None,
            2 * TOGETHER if self._is_in_lockstep else IN_HAND,
        )

    def _may_lockstep(self, predictor: Predictor, options: WorkerOptions) -> bool:
        # The time of a batch by itself cannot be told then, and torch's threads are a thread's own.
        is_timed = self._batch_timeout is not None or options.profile is not None
        is_wanted = options.lockstep and self._lockstep is not False
        is_plain = self.threads() == 1 and not self.cuda_devices
        if not is_wanted or not is_plain or is_timed or stateful_encoder(predictor._model):
            return False
        return bool(layers_to_share(predictor, bool(self._lockstep)))

    @overrides
    def threads(self) -> int:
        return self._launcher.threads(self.num_workers)

    @overrides
    def _may_wait(self) -> bool:
        return self._crew.is_hurried() and not self._crew.has_idle()

    @overrides
    def _ahead(self) -> int:
        return self._crew.in_hand * self.num_workers if self._crew.is_hurried() else 0

    @overrides
    def _hand_out(self) -> None:
        given: Dict[Member, List[Tuple]] = {}
        while self._waiting:
            member = self._crew.take_free(self._in_hand())
            if member is None:
                break
            task = self._waiting.popleft()
            self._crew.give(member, task)
            if self._unclear_deaths >= MAX_DEATHS_IN_A_ROW:
                task.is_alone = True
            given.setdefault(member, []).append((*task.batch.to_message(), task.is_alone))
            if not self._crew.is_hurried():
                self._send(given)
        self._send(given)

    def _send(self, given: Dict[Member, List[Tuple]]) -> None:
        while given:
            member, batches = given.popitem()
            self._crew.send(member, dumps(batches))

    @overrides
    def collect(
        self, timeout: Optional[float] = None, wake: Sequence[int] = ()
    ) -> List[BatchResult]:
        self._hand_out()
        events = self._crew.wait(timeout, wake)
        messages = [event.message for event in events if event.message is not None]
        nobody_died = len(messages) == len(events)
        if nobody_died and self._crew.max_batches is None:
            return self._after_results([event.member for event in events], messages)
        return self._after_each(events)

    def _after_results(
        self, members: List[Member], messages: List[memoryview]
    ) -> List[BatchResult]:
        """The workers get what waits before their results are unpacked: that may take long."""
        crew = self._crew
        tasks = [crew.finish_task(member) for member in members]
        self._in_work -= len(tasks)
        self._hand_out()
        results: List[BatchResult] = []
        for task, message in zip(tasks, messages):
            if crew is self._crew:  # and not replaced by one worker that starts over
                results += self._settle(task, self._unpacked(message), len(message))
        return results

    def _after_each(self, events: List[Event]) -> List[BatchResult]:
        """
        One after the other: who died had finished what comes before; and a process that is about to
        be recycled may have to stay, as its result says that the model keeps state.
        """
        crew = self._crew
        results: List[BatchResult] = []
        for member, process, message in events:
            if crew is not self._crew or process is not member.process:
                continue  # of a crew, or a process, that has just been replaced
            if message is None:
                results += self._after_death(member)
                continue
            result = self._unpacked(message)
            task = crew.finish_task(member)
            self._in_work -= 1
            results += self._settle(task, result, len(message))
        self._hand_out()
        return results

    def _after_death(self, member: Member) -> List[BatchResult]:
        error, to_blame = self._death(member), member.task_to_blame()
        if to_blame is not None and self._is_unclear(member):
            # Any of several may have been it, and will be found by itself.
            self._unclear_deaths += 1
            for task in member.tasks:
                task.is_alone = True
            return self._replace(member, error, None, is_blameless=True)
        return self._replace(member, error, to_blame)

    def _is_unclear(self, member: Member) -> bool:
        """Whether the member was perhaps at several batches at once. Its first is by itself."""
        return self._is_in_lockstep and member.finished > 0 and not member.tasks[0].is_alone

    def _unpacked(self, message: memoryview) -> BatchResult:
        result = load_result(message)
        if result.state_change is not None:
            self._note_state(result.state_change)
            if self.state_change is not None:
                self._crew.max_batches = None  # its state is in this process
        return result

    @overrides
    def _release(self, result: BatchResult, size: int) -> List[BatchResult]:
        if not self._is_probing:
            return super()._release(result, size)
        # Results are held until the first batch is finished and shows whether the model keeps
        # state. If it does, nothing has left the pool yet, and one worker starts over.
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
        self._held, self._is_probing = [], False
        self._keep_in_order()
        self._forget_tasks()
        self._start_crew()
        for batch in batches:
            self.submit(batch)

    def _death(self, member: Member) -> WorkerError:
        where = "before it had its model"
        if member.is_ready:
            where = "between two batches"
            if member.tasks:
                where = f"while it predicted {member.tasks[0].batch.describe()}"
                if self._is_unclear(member):
                    where += " or one of the next"
        if member.kill_at is not None:
            return WorkerTimeout(
                f"{member} was over the batch_timeout of {self._batch_timeout} s and was ended "
                + where
            )
        return WorkerDied(f"{member} {describe_end(member.process)} {where}")

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
        return self._describe_workers(self._launcher.describe(self.num_workers))
