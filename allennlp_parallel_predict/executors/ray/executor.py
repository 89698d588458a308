"""
The workers of a Ray cluster.

      submit                                                              collect
        │             Ray: placing, starting, transport                      ▲
        ▼                                                                    │
    ┌─────────┐    ┌─────────────────────────────────────────────┐    ┌──────┴───────┐
    │  tasks  │ ─► │ actor on some node: computes one, has one    │ ─► │   results    │
    │ waiting │ ─► │ actor on some node: computes one, has one    │ ─► │ as they come │
    └─────────┘    └─────────────────────────────────────────────┘    └──────────────┘
        ▲                      │ its process or its node dies
        └──────────────────────┘ its batches go back, and Ray is asked for another actor

The first batch is for the first actor alone, with parameters of its own. If it shows that the model
changes itself, that actor gets all others too, in order, as `allennlp predict` would do it; if not,
every actor uses its node's one copy of the parameters.
"""

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional, Sequence

from allennlp.predictors import Predictor
from overrides import overrides

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.messages import BatchResult, WorkerOptions
from allennlp_parallel_predict.common.serialization import dumps, load_result
from allennlp_parallel_predict.executors.base import Executor, WorkerCounts
from allennlp_parallel_predict.executors.ray.actor import ActorIdentity, ActorSetup, pack
from allennlp_parallel_predict.executors.ray.actor_pool import (
    ActorHandle,
    ActorPool,
    free_worker,
    in_our_time,
)
from allennlp_parallel_predict.executors.ray.cluster import Connection
from allennlp_parallel_predict.executors.retries import Task
from allennlp_parallel_predict.executors.supervised import (
    SupervisedExecutor,
    check_at_least,
    check_over_0,
)


@Executor.register("ray")
class RayExecutor(SupervisedExecutor):
    """
    Workers on the nodes of a Ray cluster, initialised once, that share one model on each node.

    # Parameters

    address : `str`, optional (default = `None`)
        The cluster: its `"host:port"`; `"auto"` for the one that `RAY_ADDRESS` names or that this
        machine is part of; or `"local"` for one of this machine alone that ends with the run. By
        default `"auto"`, or `"local"` if there is none, as in Ray.
    num_workers : `int`, optional (default = `None`)
        The number of workers; by default as many as the cluster's CPUs, or GPUs, suffice for.
    num_cpus_per_worker : `float`, optional (default = `1`)
        The CPUs that Ray sets aside for each worker; torch gets as many threads.
    num_gpus_per_worker : `float`, optional (default = `0`)
        The GPUs that Ray sets aside for each worker.
    share_model : `bool`, optional (default = `True`)
        Whether the workers of a node have one copy of the parameters between them.
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
    runtime_env : `Dict[str, Any]`, optional (default = `None`)
        Ray's runtime environment; by default it has the imported code that is not installed.

    # Raises

    `SettingsError`
        If a setting has a value that it cannot have.
    """

    def __init__(
        self,
        address: Optional[str] = None,
        num_workers: Optional[int] = None,
        num_cpus_per_worker: float = 1,
        num_gpus_per_worker: float = 0,
        share_model: bool = True,
        batch_timeout: Optional[float] = None,
        max_retries: int = 1,
        allow_stateful_model: bool = False,
        runtime_env: Optional[Dict[str, Any]] = None,
        max_deaths: int = 3,
    ) -> None:
        super().__init__(num_workers, batch_timeout, max_retries, allow_stateful_model, max_deaths)
        check_over_0(num_cpus_per_worker=num_cpus_per_worker)
        check_at_least(0, num_gpus_per_worker=num_gpus_per_worker)
        self._connection = Connection(address, runtime_env)
        self._requested_workers = num_workers
        self.num_workers = num_workers or 1
        self._resources = {"num_cpus": num_cpus_per_worker, "num_gpus": num_gpus_per_worker}
        self._share_model = share_model
        self._pool: Optional[ActorPool] = None

    @contextmanager
    @overrides
    def preparing(self) -> Iterator[None]:
        # First, as loading an archive takes longer than finding out that there is no cluster.
        self._connection.open()
        try:
            yield
        except BaseException:
            self.kill()
            raise

    @overrides
    def start(self, predictor: Predictor, options: WorkerOptions) -> None:
        ray = self._connection.open()
        resources = ray.cluster_resources()
        self.cpus = int(resources.get("CPU", 0))
        self.num_workers = self._requested_workers or self._as_many_as_fit(resources)
        self._is_probing = True
        self._writes = False
        self._begin(predictor, options)
        self._pool = ActorPool(
            ray,
            self.num_workers,
            [ray.put(part) for part in pack(predictor)],
            ActorSetup(options, self.threads(), self._resources["num_gpus"] > 0),
            self._resources,
            self._batch_timeout,
        )

    def _as_many_as_fit(self, cluster: Dict[str, float]) -> int:
        needs = {"CPU": self._resources["num_cpus"], "GPU": self._resources["num_gpus"]}
        fit = (cluster.get(key, 0) / need for key, need in needs.items() if need)
        return max(1, int(min(fit)))

    @overrides
    def threads(self) -> int:
        return max(1, int(self._resources["num_cpus"]))

    @overrides
    def _hand_out(self) -> None:
        pool = self._running()
        while self._waiting:
            worker = free_worker(pool.workers, self._prefetch_now())
            if worker is None or (self._is_probing and any(m.tasks for m in pool.workers)):
                return
            task = self._waiting.popleft()
            message = dumps(task.batch.to_message())
            shared = self._share_model and not self._is_probing and not self._writes
            pool.give(worker, task, message, shared)

    def _running(self) -> ActorPool:
        assert self._pool is not None, "start() comes first"
        return self._pool

    @overrides
    def collect(
        self, timeout: Optional[float] = None, wake: Sequence[int] = ()
    ) -> List[BatchResult]:
        self._check_that_it_works()
        results: List[BatchResult] = []
        pool = self._running()
        for event in pool.wait(timeout, wake):
            if event.worker in pool.workers:
                results += self._after(event.worker, event.task, event.future)
        self._hand_out()
        return results

    def _after(self, worker: ActorHandle, task: Optional[Task], future: Any) -> List[BatchResult]:
        error = future.exception()
        results: List[BatchResult] = []
        if task is None and error is None:
            self._welcome(worker, future.result())
        elif task is None:
            results = self._after_death(worker, error)
        elif error is None:
            results = self._after_result(worker, task, future.result())
        else:
            worker.errors[task] = error
        if worker.is_dead():
            results += self._after_death(worker, worker.errors[worker.tasks[0]])
        return results

    def _welcome(self, worker: ActorHandle, identity: ActorIdentity) -> None:
        worker.identity = identity
        if identity.error is not None:
            error = identity.error.rebuild(f"In {worker}, while it unpacked the model:")
            raise SettingsError(
                f"the model cannot be unpacked on {identity.host} ({identity.error.type_name}: "
                f"{identity.error.message}): code that it needs has to be installed there or to "
                "travel there (see executor.runtime_env)"
            ) from error

    def _after_result(self, worker: ActorHandle, task: Task, message: bytes) -> List[BatchResult]:
        pool = self._running()
        pool.finish_task(worker, task)
        self._in_work -= 1
        result = in_our_time(load_result(message), worker)
        if result.state_change:
            self._writes = True
            self._note_state(result.state_change)
        if self._is_probing and (result.outputs or result.state_change):
            self._is_probing = False
            if self.state_change is not None and self.num_workers > 1:
                for other in [other for other in pool.workers if other is not worker]:
                    pool.drop(other)
                self._keep_in_order()
        return self._settle(task, result, len(message))

    def _after_death(self, worker: ActorHandle, cause: BaseException) -> List[BatchResult]:
        error = worker.describe_death(cause, self._batch_timeout)
        is_node_gone = self._running().is_node_gone(worker)
        suspect = worker.tasks[0] if worker.tasks and not is_node_gone else None
        return self._replace(worker, error, suspect, exonerated=is_node_gone)

    @overrides
    def close(self) -> None:
        self.kill()

    @overrides
    def kill(self) -> None:
        if self._pool is not None:
            self._pool.kill()
        self._connection.close()

    @overrides
    def counts(self) -> WorkerCounts:
        pool = self._running()
        return WorkerCounts(sum(m.identity is not None for m in pool.workers), pool.restarts)

    @overrides
    def describe(self) -> str:
        nodes, threads = self._running().nodes(), self.threads()
        return self._describe_workers(
            f"Ray, {nodes} node{'s' * (nodes != 1)}, {threads} thread{'s' * (threads > 1)} each"
        )
