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

The parent has one thread, which waits for all sockets at once. Each worker has a second batch
queued while it computes the first, so that it never waits for the parent. Results come one by one.
So what a worker that died was at is the first batch of which there is none; or, if workers predict
several at once, one of the next, which is then found by predicting each alone.
"""

from contextlib import contextmanager
from functools import partial
from typing import Iterator, List, Optional

from allennlp.predictors import Predictor
from overrides import overrides

from allennlp_parallel_predict.accelerate.operation_batching import GROUP_SIZE
from allennlp_parallel_predict.accelerate.shared_layers import layers_to_share
from allennlp_parallel_predict.common import machine
from allennlp_parallel_predict.common.errors import check_at_least
from allennlp_parallel_predict.common.messages import BatchResult, WorkerOptions
from allennlp_parallel_predict.executors.base import Executor, WorkerCounts
from allennlp_parallel_predict.executors.pool.launcher import Launcher
from allennlp_parallel_predict.executors.pool.worker_pool import WorkerPool
from allennlp_parallel_predict.executors.retries import count_inputs
from allennlp_parallel_predict.executors.state_probe import ModelKind
from allennlp_parallel_predict.executors.supervised import SupervisedExecutor
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
    batch_timeout, max_retries, allow_stateful_model, max_deaths :
        As for `SupervisedExecutor`.
    max_batches_per_worker : `int`, optional (default = `None`)
        The batches after which a worker is replaced, for models that leak memory.
    pin_cpus : `bool`, optional (default = `True`)
        Whether each worker stays on a CPU of its own, if there is one of one thread for each CPU.
    operation_batching : `bool`, optional (default = `None`)
        Whether lines that are predicted one by one pass the layers of a transformer together, each
        in a thread of its own; by default if all code is AllenNLP's and the layers are large
        enough. With `True`, also if the predictor, the reader or the model is not AllenNLP's: it
        must not keep anything of a line, nor hold a lock, while the model predicts. In any case
        only with one thread a worker, on CPUs, without a `batch_timeout` and a profile.
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
        operation_batching: Optional[bool] = None,
        max_deaths: int = 3,
    ) -> None:
        super().__init__(num_workers, batch_timeout, max_retries, allow_stateful_model, max_deaths)
        check_at_least(1, "executor.", threads_per_worker=threads_per_worker)
        check_at_least(1, "executor.", max_batches_per_worker=max_batches_per_worker)
        self.cuda_devices = cuda_devices or []
        self._launcher = Launcher(
            threads_per_worker, start_method, share_model, self.cuda_devices, pin_cpus
        )
        self.num_workers = num_workers or len(self.cuda_devices or self._launcher.cpus)
        self._max_batches_per_worker = max_batches_per_worker
        self._operation_batching = operation_batching

    _pool: WorkerPool

    @contextmanager
    @overrides
    def preparing(self) -> Iterator[None]:
        # The parent computes nothing; and threads of torch's would not survive the fork.
        with machine.ready_to_fork():
            yield

    @overrides
    def start(
        self, predictor: Predictor, options: WorkerOptions, preserve_order: bool = True
    ) -> None:
        self._begin(predictor, options, preserve_order)
        may_group = self._may_group(predictor, options)
        layers = may_group and layers_to_share(predictor, bool(self._operation_batching))
        self._group_size = GROUP_SIZE if layers else 1
        self._launcher.prepare(predictor, options._replace(group_size=self._group_size))
        self._start_pool()

    def _start_pool(self) -> None:
        self._pool = WorkerPool(
            self.num_workers,
            partial(self._launcher.launch, self.num_workers),
            batch_timeout=self._batch_timeout,
            max_batches=self._max_batches_per_worker if self.state_change is None else None,
            group_size=self._group_size,
            starts_early=not self._preserve_order,
        )
        self._is_running = True

    def _may_group(self, predictor: Predictor, options: WorkerOptions) -> bool:
        # The time of a batch by itself cannot be told then, and torch's threads are a thread's own.
        is_timed = self._batch_timeout is not None or options.profile is not None
        is_wanted = options.may_group and self._operation_batching is not False
        is_plain = self.threads() == 1 and not self.cuda_devices
        return is_wanted and is_plain and not is_timed and not stateful_encoder(predictor._model)

    @overrides
    def threads(self) -> int:
        return self._launcher.threads(self.num_workers)

    @overrides
    def _release(self, result: BatchResult, size: int) -> List[BatchResult]:
        # If the model keeps state, nothing has left the pool yet, and one worker starts over.
        first = next(iter(self._window.batches))
        released = self._probe.add(result, size, first)
        if result.state_change and not released and self._probe.kind is ModelKind.STATEFUL:
            self._start_over()
        results: List[BatchResult] = []
        for held, held_size in released:
            results += super()._release(held, held_size)
        return results

    def _start_over(self) -> None:
        batches = list(self._window.batches.values())
        self._pool.kill()
        self._keep_in_order()
        self._forget_tasks()
        self._start_pool()
        for batch in batches:
            self.submit(batch)

    @overrides
    def counts(self) -> WorkerCounts:
        alive = len(self._pool.workers)
        return WorkerCounts(alive, self._pool.restarts, count_inputs(self._waiting))

    @overrides
    def describe(self) -> str:
        return self._describe_workers(self._launcher.describe(self.num_workers), self._pool.started)
