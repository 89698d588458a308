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

from allennlp_parallel_predict.accelerate.operation_batching import TOGETHER, layers_to_share
from allennlp_parallel_predict.common import machine
from allennlp_parallel_predict.common.errors import WorkerDied, WorkerError, WorkerTimeout
from allennlp_parallel_predict.common.messages import BatchResult, WorkerOptions
from allennlp_parallel_predict.common.recorder import current, in_stage
from allennlp_parallel_predict.common.serialization import dumps, load_result
from allennlp_parallel_predict.common.stages import RECEIVING, SENDING
from allennlp_parallel_predict.executors.base import Executor, WorkerCounts
from allennlp_parallel_predict.executors.pool.launcher import Launcher
from allennlp_parallel_predict.executors.pool.worker_pool import (
    Event,
    WorkerHandle,
    WorkerPool,
    describe_end,
)
from allennlp_parallel_predict.executors.supervised import (
    PREFETCH,
    SupervisedExecutor,
    check_at_least,
)
from allennlp_parallel_predict.models.state import stateful_encoder


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
    max_deaths : `int`, optional (default = `3`)
        How often in a row a worker may die while it loads or waits, and the inputs that no worker
        may survive before any batch is finished: more end the run with an error.
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
        max_deaths: int = 3,
    ) -> None:
        super().__init__(num_workers, batch_timeout, max_retries, allow_stateful_model, max_deaths)
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
        with machine.ready_to_fork():
            yield

    @overrides
    def start(self, predictor: Predictor, options: WorkerOptions) -> None:
        self._begin(predictor, options)
        self._is_in_lockstep = self._may_lockstep(predictor, options)
        self._unclear_deaths = 0
        self._launcher.prepare(predictor, options._replace(lockstep=self._is_in_lockstep))
        self._held: List[Tuple[BatchResult, int]] = []
        self._is_probing = self.num_workers > 1 and not self._allow_stateful_model
        self._start_pool()
        self._is_started = True

    def _start_pool(self) -> None:
        self._pool = WorkerPool(
            self.num_workers,
            partial(self._launcher.launch, self.num_workers),
            self._batch_timeout,
            self._max_batches_per_worker if self.state_change is None else None,
            2 * TOGETHER if self._is_in_lockstep else PREFETCH,
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
        return self._pool.sends_in_bulk() and not self._pool.has_idle()

    @overrides
    def _ahead(self) -> int:
        return self._pool.prefetch * self.num_workers if self._pool.sends_in_bulk() else 0

    @overrides
    def _hand_out(self) -> None:
        given: Dict[WorkerHandle, List[Tuple]] = {}
        while self._waiting:
            worker = self._pool.take_free(self._prefetch_now())
            if worker is None:
                break
            task = self._waiting.popleft()
            self._pool.give(worker, task)
            if self._unclear_deaths >= self._max_deaths:
                task.is_alone = True
            given.setdefault(worker, []).append((*task.batch.to_message(), task.is_alone))
            if not self._pool.sends_in_bulk():
                self._send(given)
        self._send(given)

    @in_stage(SENDING)
    def _send(self, given: Dict[WorkerHandle, List[Tuple]]) -> None:
        while given:
            worker, batches = given.popitem()
            message = dumps(batches)
            current().count_sent(len(message))
            self._pool.send(worker, message)

    @overrides
    def collect(
        self, timeout: Optional[float] = None, wake: Sequence[int] = ()
    ) -> List[BatchResult]:
        self._check_that_it_works()
        self._hand_out()
        events = self._pool.wait(timeout, wake)
        messages = [event.message for event in events if event.message is not None]
        nobody_died = len(messages) == len(events)
        if nobody_died and self._pool.max_batches is None:
            return self._after_results([event.worker for event in events], messages)
        return self._after_each(events)

    def _after_results(
        self, workers: List[WorkerHandle], messages: List[memoryview]
    ) -> List[BatchResult]:
        """The workers get what waits before their results are unpacked: that may take long."""
        pool = self._pool
        tasks = [pool.finish_task(worker) for worker in workers]
        self._in_work -= len(tasks)
        self._hand_out()
        results: List[BatchResult] = []
        for task, message in zip(tasks, messages):
            if pool is self._pool:  # and not replaced by one worker that starts over
                results += self._settle(task, self._unpacked(message), len(message))
        return results

    def _after_each(self, events: List[Event]) -> List[BatchResult]:
        """
        One after the other: who died had finished what comes before; and a process that is about to
        be recycled may have to stay, as its result says that the model keeps state.
        """
        pool = self._pool
        results: List[BatchResult] = []
        for worker, process, message in events:
            if pool is not self._pool or process is not worker.process:
                continue  # of a pool, or a process, that has just been replaced
            if message is None:
                results += self._after_death(worker)
                continue
            result = self._unpacked(message)
            task = pool.finish_task(worker)
            self._in_work -= 1
            results += self._settle(task, result, len(message))
        self._hand_out()
        return results

    def _after_death(self, worker: WorkerHandle) -> List[BatchResult]:
        error, suspect = self._death(worker), worker.suspect()
        if suspect is not None and self._is_unclear(worker):
            # Any of several may have been it, and will be found by itself.
            self._unclear_deaths += 1
            for task in worker.tasks:
                task.is_alone = True
            return self._replace(worker, error, None, exonerated=True)
        return self._replace(worker, error, suspect)

    def _is_unclear(self, worker: WorkerHandle) -> bool:
        """Whether the worker was perhaps at several batches at once. Its first is by itself."""
        return self._is_in_lockstep and worker.finished > 0 and not worker.tasks[0].is_alone

    @in_stage(RECEIVING)
    def _unpacked(self, message: memoryview) -> BatchResult:
        current().count_received(len(message))
        result = load_result(message)
        if result.state_change is not None:
            self._note_state(result.state_change)
            if self.state_change is not None:
                self._pool.max_batches = None  # its state is in this process
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
        self._pool.kill()
        self._held, self._is_probing = [], False
        self._keep_in_order()
        self._forget_tasks()
        self._start_pool()
        for batch in batches:
            self.submit(batch)

    def _death(self, worker: WorkerHandle) -> WorkerError:
        where = "before it had its model"
        if worker.is_ready:
            where = "between two batches"
            if worker.tasks:
                where = f"while it predicted {worker.tasks[0].batch.describe()}"
                if self._is_unclear(worker):
                    where += " or one of the next"
        if worker.kill_at is not None:
            return WorkerTimeout(
                f"{worker} was over the batch_timeout of {self._batch_timeout} s and was ended "
                + where
            )
        how = describe_end(worker.process)
        if worker.process.channel.is_garbled:
            how = "was ended as something wrote into its connection with the parent"
        return WorkerDied(f"{worker} {how} {where}")

    @overrides
    def close(self) -> None:
        self._end(WorkerPool.close)

    @overrides
    def kill(self) -> None:
        self._end(WorkerPool.kill)

    def _end(self, how: Callable[[WorkerPool], None]) -> None:
        if self._is_started:
            self._is_started = False
            how(self._pool)

    @overrides
    def counts(self) -> WorkerCounts:
        return WorkerCounts(len(self._pool.workers), self._pool.restarts)

    @overrides
    def describe(self) -> str:
        return self._describe_workers(self._launcher.describe(self.num_workers))
