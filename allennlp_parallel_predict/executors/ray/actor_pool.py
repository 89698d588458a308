"""The actors of a Ray cluster that work for one run: asked for, watched, replaced and ended."""

import logging
import select
import time
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional, Sequence

from overrides import overrides

from allennlp_parallel_predict.common.errors import SettingsError, WorkerDied
from allennlp_parallel_predict.common.wakeup import WakeUp
from allennlp_parallel_predict.executors.base_pool import (
    BaseWorkerPool,
    WorkerDeath,
    WorkerEvent,
    WorkerHandle,
)
from allennlp_parallel_predict.executors.ray.actor import ActorIdentity, ActorSetup, RayWorker
from allennlp_parallel_predict.executors.ray.handle import ActorHandle
from allennlp_parallel_predict.executors.retries import Task

logger = logging.getLogger(__name__)

_TICK = 1.0
"""Seconds after which a wait looks around, whatever happens."""
_PATIENCE = 30.0
"""Seconds without any actor after which that is said; doubled each time."""


class _Answer(NamedTuple):
    """What Ray says of a call."""

    worker: ActorHandle
    task: Optional[Task]
    """The task that it is about, or `None`: the actor has its model, or failed to get it."""
    future: Any


class ActorPool(BaseWorkerPool):
    """
    # Parameters

    ray : `Any`
        The module, connected to a cluster.
    size : `int`
        The number of workers.
    packed : `Sequence[Any]`
        References to the model in Ray's object store.
    setup : `ActorSetup`
        How actors are set up.
    resources : `Dict[str, float]`
        What Ray sets aside for each: `num_cpus`, `num_gpus`.
    batch_timeout, start_timeout : `float`, optional (default = `None`)
        The seconds that a batch may take, and that there may be no worker.
    """

    def __init__(
        self,
        ray: Any,
        size: int,
        packed: Sequence[Any],
        setup: ActorSetup,
        resources: Dict[str, float],
        batch_timeout: Optional[float] = None,
        start_timeout: Optional[float] = None,
    ) -> None:
        self._workers: List[ActorHandle] = []
        self._is_probing = False
        self._shares_parameters = False
        self._nodes = 0
        self._ray = ray
        self._packed = packed
        self._setup = setup
        self._resources = resources
        self._batch_timeout = batch_timeout
        self._start_timeout = start_timeout
        # An actor that Ray restarted itself would be sent its batch again however often it died.
        self._actor_class = ray.remote(max_restarts=0, max_task_retries=0, **resources)(RayWorker)
        self._answers: Deque[_Answer] = deque()
        self._wakeup = WakeUp()
        self._lonely_since = time.monotonic()
        self._patience = _PATIENCE
        for _ in range(size):
            self._launch()

    def _launch(self, deaths_in_a_row: int = 0) -> None:
        """Asks for an actor, which comes when there is room for it somewhere in the cluster."""
        worker = ActorHandle(self._actor_class.remote(), deaths_in_a_row)
        self._workers.append(worker)
        self._follow(worker, None, worker.actor.set_up.remote(*self._packed, self._setup))

    def _follow(self, worker: ActorHandle, task: Optional[Task], ref: Any) -> None:
        def note(future: Any) -> None:  # in a thread of Ray's
            self._answers.append(_Answer(worker, task, future))
            self._wakeup.set()

        ref.future().add_done_callback(note)

    def use(self, is_probing: bool, shares: bool) -> None:
        """
        # Parameters

        is_probing : `bool`
            Whether only one batch is predicted at a time.
        shares : `bool`
            Whether batches are predicted with the node's one copy of the parameters.
        """
        self._is_probing = is_probing
        self._shares_parameters = shares

    @overrides
    def _may_take(self, worker: WorkerHandle) -> bool:
        assert isinstance(worker, ActorHandle)
        if self._is_probing and any(other.tasks for other in self._workers):
            return False
        return worker.identity is not None and not worker.errors and not worker.timed_out

    @overrides
    def _send(self, worker: WorkerHandle, task: Task, message: bytes) -> None:
        assert isinstance(worker, ActorHandle)
        reference = worker.actor.predict.remote(message, self._shares_parameters)
        self._follow(worker, task, reference)

    @property
    @overrides
    def workers(self) -> Sequence[ActorHandle]:
        return self._workers

    @overrides
    def wait(self, timeout: Optional[float], wake: Sequence[int]) -> List[WorkerEvent]:
        poll = select.poll()
        for number in (self._wakeup.fileno(), *wake):
            poll.register(number, select.POLLIN)
        seconds = [_TICK if timeout is None else min(timeout, _TICK)]
        if self._batch_timeout is not None:
            seconds += [self._seconds_left(worker) for worker in self._workers]
        poll.poll(max(0.0, min(seconds)) * 1000)
        self._wakeup.clear()
        self._end_the_slow()
        self._complain_if_lonely()
        events: List[WorkerEvent] = []
        while self._answers:
            answer = self._answers.popleft()
            if answer.worker in self._workers:
                events += self._events(*answer)
        return events

    def _events(self, worker: ActorHandle, task: Optional[Task], future: Any) -> List[WorkerEvent]:
        error = future.exception()
        if task is None and error is None:
            self._welcome(worker, future.result())
        elif task is None:
            return [WorkerEvent(worker, death=self._death(worker, error))]
        elif error is None:
            worker.finish_task(task)
            return [WorkerEvent(worker, task, future.result())]
        else:
            worker.errors[task] = error
            if worker.is_dead():
                cause = worker.errors[worker.tasks[0]]
                return [WorkerEvent(worker, death=self._death(worker, cause))]
        return []

    def _welcome(self, worker: ActorHandle, identity: ActorIdentity) -> None:
        worker.identity = identity
        if identity.error is not None:
            error = identity.error.rebuild(f"In {worker}, while it unpacked the model:")
            raise SettingsError(
                f"the model cannot be unpacked on {identity.host} ({identity.error.type_name}: "
                f"{identity.error.message}): code that it needs has to be installed there or to "
                "travel there (see executor.runtime_env)"
            ) from error

    def _death(self, worker: ActorHandle, cause: BaseException) -> WorkerDeath:
        error = worker.describe_death(cause, self._batch_timeout)
        is_node_gone = self._is_node_gone(worker)
        suspect = worker.tasks[0] if worker.tasks and not is_node_gone else None
        return WorkerDeath(error, suspect, is_node_gone)

    def _end_the_slow(self) -> None:
        for worker in self._workers if self._batch_timeout is not None else ():
            if self._seconds_left(worker) <= 0:
                worker.timed_out = True
                self._ray.kill(worker.actor, no_restart=True)

    def _seconds_left(self, worker: ActorHandle) -> float:
        if self._batch_timeout is None or not worker.tasks or worker.timed_out:
            return float("inf")
        return worker.since + self._batch_timeout - time.monotonic()

    def _complain_if_lonely(self) -> None:
        now = time.monotonic()
        if any(worker.identity for worker in self._workers):
            self._lonely_since, self._patience = now, _PATIENCE
        waited = now - self._lonely_since
        is_over = self._start_timeout is not None and waited > self._start_timeout
        if not is_over and waited <= self._patience:
            return
        self._patience *= 2
        complaint = (
            f"no worker for {waited:.0f} s: each needs {self._resources} on one node, of which the "
            f"cluster has {self._ray.available_resources()} free, and a process that can start, "
            "which Ray's messages above and executor.runtime_env are about"
        )
        if is_over:
            raise WorkerDied(f"{complaint} (executor.start_timeout: {self._start_timeout:g})")
        logger.warning(complaint)

    def _is_node_gone(self, worker: ActorHandle) -> bool:
        """Whether a worker died only because its node did."""
        if worker.identity is None:
            return False
        return worker.identity.node not in {n["NodeID"] for n in self._ray.nodes() if n["Alive"]}

    def nodes(self) -> int:
        """The number of nodes that workers are on, or were at the end."""
        self._nodes = len({m.identity.node for m in self._workers if m.identity}) or self._nodes
        return self._nodes

    @overrides
    def replace(self, worker: WorkerHandle) -> None:
        assert isinstance(worker, ActorHandle)
        self.drop(worker)
        self._launch(worker.deaths_in_a_row)
        self.restarts += 1

    def drop_others(self, worker: WorkerHandle) -> None:
        """Ends all workers but one."""
        for other in [other for other in self._workers if other is not worker]:
            self.drop(other)

    def drop(self, worker: ActorHandle) -> None:
        self._workers.remove(worker)
        self._ray.kill(worker.actor, no_restart=True)

    @overrides
    def kill(self) -> None:
        self.nodes()  # the report of a profile is written after the end
        while self._workers:
            self.drop(self._workers[-1])
        self._packed = []
        self._wakeup.close()
