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

import logging
import sys
from collections import deque
from contextlib import contextmanager
from typing import Any, Deque, Dict, Iterator, List, Optional, Sequence

from allennlp.predictors import Predictor
from overrides import overrides

from allennlp_parallel_predict.batching import Batch
from allennlp_parallel_predict.errors import (
    ModelStateError,
    RemoteError,
    SettingsError,
    WorkerDied,
    WorkerError,
)
from allennlp_parallel_predict.executors.channel import dumps
from allennlp_parallel_predict.executors.executor import Executor, WorkerCounts
from allennlp_parallel_predict.executors.ray_cluster import (
    ActorIdentity,
    ActorSetup,
    Connection,
    pack,
)
from allennlp_parallel_predict.executors.ray_crew import (
    IN_HAND,
    RayCrew,
    RayMember,
    free_member,
    in_our_time,
)
from allennlp_parallel_predict.executors.retries import MAX_DEATHS_IN_A_ROW, Search, Task, lost
from allennlp_parallel_predict.executors.window import Window
from allennlp_parallel_predict.executors.worker_process import load_result
from allennlp_parallel_predict.model_state import stateful_encoder
from allennlp_parallel_predict.worker import BatchResult, Failure, WorkerOptions

logger = logging.getLogger(__name__)

_WINDOW = 16
"""Batches a worker that may lie between the oldest unfinished one and the newest."""
_MAX_HELD_BYTES = 64 << 20


@Executor.register("ray")
class RayExecutor(Executor):
    """
    Workers on the nodes of a Ray cluster, initialised once, that share one model on each node.

    # Parameters

    address : `str`, optional (default = `"auto"`)
        The cluster: `"auto"` for the one that this machine is part of, or that `RAY_ADDRESS` names;
        its `"host:port"`; or `"local"` for one of this machine alone that ends with the run.
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
    runtime_env : `Dict[str, Any]`, optional (default = `None`)
        Ray's runtime environment; by default it has the imported code that is not installed.

    # Raises

    `SettingsError`
        If a setting has a value that it cannot have.
    """

    def __init__(
        self,
        address: str = "auto",
        num_workers: Optional[int] = None,
        num_cpus_per_worker: float = 1,
        num_gpus_per_worker: float = 0,
        share_model: bool = True,
        batch_timeout: Optional[float] = None,
        max_retries: int = 1,
        allow_stateful_model: bool = False,
        runtime_env: Optional[Dict[str, Any]] = None,
    ) -> None:
        for key, value, minimum in (
            ("num_workers", 1 if num_workers is None else num_workers, 1),
            ("num_gpus_per_worker", num_gpus_per_worker, 0),
            ("max_retries", max_retries, 0),
        ):
            if value < minimum:
                raise SettingsError(f"executor.{key} must be at least {minimum}, but it is {value}")
        for key, number in (
            ("num_cpus_per_worker", num_cpus_per_worker),
            ("batch_timeout", 1 if batch_timeout is None else batch_timeout),
        ):
            if number <= 0:
                raise SettingsError(f"executor.{key} must be over 0, but it is {number}")
        self._connection = Connection(address, runtime_env)
        self._requested_workers = num_workers
        self.num_workers = num_workers or 1
        self._resources = {"num_cpus": num_cpus_per_worker, "num_gpus": num_gpus_per_worker}
        self._share_model = share_model
        self._batch_timeout = batch_timeout
        self._max_retries = max_retries
        self._allow_stateful_model = allow_stateful_model
        self._crew: Optional[RayCrew] = None

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
        self._options = options
        self.num_workers = self._requested_workers or self._as_many_as_fit(ray.cluster_resources())
        self._waiting: Deque[Task] = deque()
        self._in_work = 0
        self._is_probing = True
        self._writes = False
        encoder = stateful_encoder(predictor._model)
        if encoder is not None:
            self._note_state(f"its module {encoder} is stateful")
            if self.state_change is not None and self.num_workers > 1:
                self._keep_in_order()
        width = _WINDOW * self.num_workers if self.keeps_order else sys.maxsize
        self._window = Window(width, _MAX_HELD_BYTES if self.keeps_order else sys.maxsize)
        self._crew = RayCrew(
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
        crew = self._running()
        while self._waiting:
            member = free_member(crew.members)
            if member is None or (self._is_probing and any(m.tasks for m in crew.members)):
                return
            task = self._waiting.popleft()
            message = dumps((task.batch.number, task.batch.kind, task.batch.values))
            shared = self._share_model and not self._is_probing and not self._writes
            crew.give(member, task, message, shared)

    def _running(self) -> RayCrew:
        assert self._crew is not None, "start() comes first"
        return self._crew

    @overrides
    def collect(
        self, timeout: Optional[float] = None, wake: Sequence[int] = ()
    ) -> List[BatchResult]:
        results: List[BatchResult] = []
        crew = self._running()
        for event in crew.wait(timeout, wake):
            if event.member in crew.members:
                results += self._after(event.member, event.task, event.future)
        self._hand_out()
        return results

    def _after(self, member: RayMember, task: Optional[Task], future: Any) -> List[BatchResult]:
        error = future.exception()
        results: List[BatchResult] = []
        if task is None and error is None:
            self._welcome(member, future.result())
        elif task is None:
            results = self._after_death(member, error)
        elif error is None:
            results = self._after_result(member, task, future.result())
        else:
            member.errors[task] = error
        if member.is_dead():
            results += self._after_death(member, member.errors[member.tasks[0]])
        return results

    def _welcome(self, member: RayMember, identity: ActorIdentity) -> None:
        member.identity = identity
        if identity.error is not None:
            error = identity.error.rebuild(f"In {member}, while it unpacked the model:")
            raise SettingsError(
                f"the model cannot be unpacked on {identity.host} ({identity.error.type_name}: "
                f"{identity.error.message}): code that it needs has to be installed there or to "
                "travel there (see executor.runtime_env)"
            ) from error

    def _after_result(self, member: RayMember, task: Task, message: bytes) -> List[BatchResult]:
        crew = self._running()
        crew.finish_task(member, task)
        self._in_work -= 1
        result = in_our_time(load_result(message), member)
        if result.state_change:
            self._writes = True
            self._note_state(result.state_change)
        if self._is_probing and (result.outputs or result.state_change):
            self._is_probing = False
            if self.state_change is not None and self.num_workers > 1:
                for other in [other for other in crew.members if other is not member]:
                    crew.drop(other)
                self._keep_in_order()
        elif result.state_change and self.num_workers > 1 and not self._allow_stateful_model:
            raise ModelStateError(
                f"what this model predicts depends on the batches that it saw before: "
                f"{result.state_change}, for the first time in {task.batch.describe()}. Run it "
                "with --num-workers 1, or set executor.allow_stateful_model to true if that does "
                "not matter to you"
            )
        return self._settle(task, result, len(message))

    def _settle(self, task: Task, result: BatchResult, size: int) -> List[BatchResult]:
        if task.search is not None:
            merged = task.search.add(task, result)
            if merged is None:
                return []
            result = merged
        self._window.leave(result.number, size)
        return [result]

    def _after_death(self, member: RayMember, cause: BaseException) -> List[BatchResult]:
        error = member.describe_death(cause, self._batch_timeout)
        if self.state_change is not None and member.finished:
            raise ModelStateError(
                f"{error}. What this model predicts depends on the batches that it saw before "
                f"({self.state_change}), and that state is lost: start the run anew"
            )
        is_node_gone = self._running().is_node_gone(member)
        task = member.tasks[0] if member.tasks and not is_node_gone else None
        if not is_node_gone and (task is None or (len(task.batch.values) == 1 and not task.deaths)):
            member.deaths_in_a_row += 1
        self._in_work -= len(member.tasks)
        self._queue(*[other for other in member.tasks if other is not task], first=True)
        results = self._blame(task, error) if task is not None else []
        if member.deaths_in_a_row >= MAX_DEATHS_IN_A_ROW:
            raise WorkerDied(f"{error}; it is the third time in a row, so the run ends here")
        logger.warning("%s; Ray is asked for another", error)
        self._running().replace(member)
        return results

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
        return self._settle(task, lost(task.batch, failure, self._options.on_error), 0)

    @overrides
    def close(self) -> None:
        self.kill()

    @overrides
    def kill(self) -> None:
        if self._crew is not None:
            self._crew.kill()
        self._connection.close()

    @overrides
    def counts(self) -> WorkerCounts:
        crew = self._running()
        return WorkerCounts(sum(m.identity is not None for m in crew.members), crew.restarts)

    @overrides
    def describe(self) -> str:
        workers = f"{self.num_workers} worker{'s' * (self.num_workers > 1)}"
        nodes, threads = self._running().nodes(), self.threads()
        nodes_and_threads = (
            f"{nodes} node{'s' * (nodes != 1)}, {threads} thread{'s' * (threads > 1)}"
        )
        return f"{workers} (Ray, {nodes_and_threads} each)"
