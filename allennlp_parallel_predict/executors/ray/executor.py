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
from typing import Any, Dict, Iterator, Optional

from allennlp.predictors import Predictor
from overrides import overrides

from allennlp_parallel_predict.common.errors import check_at_least
from allennlp_parallel_predict.common.messages import BatchResult, WorkerOptions
from allennlp_parallel_predict.executors.base import Executor, WorkerCounts
from allennlp_parallel_predict.executors.base_pool import WorkerHandle
from allennlp_parallel_predict.executors.ray.actor import ActorSetup, pack
from allennlp_parallel_predict.executors.ray.actor_pool import ActorPool
from allennlp_parallel_predict.executors.ray.cluster import Connection
from allennlp_parallel_predict.executors.ray.handle import ActorHandle, in_our_time
from allennlp_parallel_predict.executors.retries import count_inputs
from allennlp_parallel_predict.executors.state_probe import ModelKind, StateProbe
from allennlp_parallel_predict.executors.supervised import SupervisedExecutor, check_over_0
from allennlp_parallel_predict.models.state import RandomStates


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
    batch_timeout, max_retries, allow_stateful_model, max_deaths :
        As for `SupervisedExecutor`.
    runtime_env : `Dict[str, Any]`, optional (default = `None`)
        Ray's runtime environment; by default it has the imported code that is not installed.
    start_timeout : `float`, optional (default = `600`)
        The seconds without any worker after which the run ends; with `None`, it waits.
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
        start_timeout: Optional[float] = 600,
    ) -> None:
        super().__init__(num_workers, batch_timeout, max_retries, allow_stateful_model, max_deaths)
        check_over_0(num_cpus_per_worker=num_cpus_per_worker, start_timeout=start_timeout)
        check_at_least(0, "executor.", num_gpus_per_worker=num_gpus_per_worker)
        self._connection = Connection(address, runtime_env)
        self._requested_workers = num_workers
        self.num_workers = num_workers or 1
        self._resources = {"num_cpus": num_cpus_per_worker, "num_gpus": num_gpus_per_worker}
        self._share_model = share_model
        self._start_timeout = start_timeout

    _pool: ActorPool

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
    def start(
        self, predictor: Predictor, options: WorkerOptions, preserve_order: bool = True
    ) -> None:
        ray = self._connection.open()
        resources = ray.cluster_resources()
        self.cpus = int(resources.get("CPU", 0))
        self.num_workers = self._requested_workers or self._as_many_as_fit(resources)
        self._begin(predictor, options, preserve_order)
        # Parameters are shared only with a model that does not write to them.
        self._probe = StateProbe(is_needed=True)
        self._pool = ActorPool(
            ray,
            self.num_workers,
            [ray.put(part) for part in pack(predictor)],
            ActorSetup(
                options, self.threads(), self._resources["num_gpus"] > 0, RandomStates.read()
            ),
            self._resources,
            self._batch_timeout,
            self._start_timeout,
        )
        self._pool.use(is_probing=True, shares=False)
        self._is_running = True

    def _as_many_as_fit(self, cluster: Dict[str, float]) -> int:
        needs = {"CPU": self._resources["num_cpus"], "GPU": self._resources["num_gpus"]}
        fit = (cluster.get(key, 0) / need for key, need in needs.items() if need)
        return max(1, int(min(fit)))

    @overrides
    def threads(self) -> int:
        return max(1, int(self._resources["num_cpus"]))

    @overrides
    def _examined(self, worker: WorkerHandle, result: BatchResult) -> BatchResult:
        assert isinstance(worker, ActorHandle)
        was_open = self._probe.is_open
        if result.state_change or (was_open and result.outputs):
            self._probe.decide(result)
        if not self._probe.is_open:
            is_stateful = self._probe.kind is ModelKind.STATEFUL
            self._pool.use(is_probing=False, shares=self._share_model and not is_stateful)
            if was_open and self.state_change is not None and self.num_workers > 1:
                self._pool.drop_others(worker)
                self._keep_in_order()
        return in_our_time(result, worker)

    @overrides
    def close(self) -> None:
        self.kill()

    @overrides
    def kill(self) -> None:
        super().kill()
        self._connection.close()

    @overrides
    def counts(self) -> WorkerCounts:
        alive = sum(worker.identity is not None for worker in self._pool.workers)
        return WorkerCounts(alive, self._pool.restarts, count_inputs(self._waiting))

    @overrides
    def describe(self) -> str:
        nodes, threads = self._pool.nodes(), self.threads()
        return self._describe_workers(
            f"Ray, {nodes} node{'s' * (nodes != 1)}, {threads} thread{'s' * (threads > 1)} each",
            self.num_workers,
        )
