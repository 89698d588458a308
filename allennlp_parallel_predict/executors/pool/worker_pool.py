"""
The worker processes of a pool: started, watched, replaced and ended.

One thread waits for all of their sockets at once. A worker's end shows as the end of its
connection, since the parent closes the worker's side as soon as the worker has it; where a process
that the worker itself has started holds the connection open, it shows within a second.
"""

import logging
import selectors
import signal
import socket
import time
from collections import OrderedDict, deque
from typing import Callable, Deque, Dict, List, Optional, Sequence

from overrides import overrides

from allennlp_parallel_predict.common.recorder import current, in_stage
from allennlp_parallel_predict.common.serialization import dumps
from allennlp_parallel_predict.common.stages import SENDING
from allennlp_parallel_predict.executors.base_pool import (
    PREFETCH,
    BaseWorkerPool,
    WorkerDeath,
    WorkerEvent,
    WorkerHandle,
)
from allennlp_parallel_predict.executors.pool.handle import ProcessHandle
from allennlp_parallel_predict.executors.pool.worker_process import WorkerProcess
from allennlp_parallel_predict.executors.retries import Task
from allennlp_parallel_predict.worker.process import READY

logger = logging.getLogger(__name__)

_GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL."""
_TICK = 0.25
"""Seconds after which a wait looks around, whatever happens."""
_LONGEST_LOAD = 600.0
"""Seconds that loading the model may take, with a `batch_timeout` and if none has managed yet."""
_BUFFERED_SECONDS, _MAX_PREFETCH = 0.01, 32
"""Seconds for which a worker should have batches, and the number that is enough in any case.
To wake a worker that has run out takes the parent longer than to serve one that has not."""
_SLOW = 0.25
"""Seconds of a batch from which on a worker has no more than one that waits."""
_SMOOTHING = 0.05
_MAX_UNCLEAR_DEATHS = 3
"""Deaths over one of several batches after which each is predicted by itself."""
Launch = Callable[[int, Sequence[socket.socket]], WorkerProcess]
"""Starts the worker of a number; it gets the sockets that the worker must not keep."""


class WorkerPool(BaseWorkerPool):
    """
    # Parameters

    size : `int`
        The number of workers.
    launch : `Launch`
        How to start one.
    batch_timeout : `float`, optional (default = `None`)
        The seconds that a batch may take.
    max_batches : `int`, optional (default = `None`)
        The batches after which a process is replaced.
    group_size : `int`, optional (default = `1`)
        The batches that a worker predicts at once, if it has so many.
    starts_early : `bool`, optional (default = `False`)
        Whether all workers start at once, and not when there is something for them to do.
    """

    def __init__(
        self,
        size: int,
        launch: Launch,
        batch_timeout: Optional[float] = None,
        max_batches: Optional[int] = None,
        group_size: int = 1,
        starts_early: bool = False,
    ) -> None:
        self._workers: List[ProcessHandle] = []
        self.started = 0
        """The most workers that there were."""
        self._size = size
        self._group_size = group_size
        self._unclear_deaths = 0
        self.prefetch = self._min_prefetch = PREFETCH if group_size == 1 else 2 * group_size
        self._batch_seconds = 1.0 if group_size == 1 else _SLOW / 2
        self._launch = launch
        self._batch_timeout = batch_timeout
        self._max_batches = max_batches
        self._tick = min(_TICK, batch_timeout / 4 if batch_timeout else _TICK)
        self._slowest_load: Optional[float] = None
        self._selector = selectors.DefaultSelector()
        # Workers that may have fewer batches than they can hold; looked over when taken out.
        self._idle: Deque[ProcessHandle] = deque()
        self._underfilled: "OrderedDict[ProcessHandle, None]" = OrderedDict()
        self._retired: List[WorkerProcess] = []
        self._due: List[ProcessHandle] = []  # to be recycled
        self._next_look = time.monotonic() + self._tick
        for number in range(size if starts_early else 1):
            self._start(number)

    def _start(self, number: int) -> None:
        inherited = [worker.process.channel.socket for worker in self._workers]
        try:
            process = self._launch(number, inherited)
        except BaseException:
            self.kill()
            raise
        if number == len(self._workers):
            self._workers.append(ProcessHandle(number, process))
            self.started = number + 1
        else:
            self._workers[number].fill(process)
        worker = self._workers[number]
        self._selector.register(process.channel.socket, selectors.EVENT_READ, worker)
        self._idle.append(worker)

    @property
    @overrides
    def workers(self) -> Sequence[WorkerHandle]:
        return self._workers

    @overrides
    def hand_out(self, waiting: Deque[Task], reserve: int) -> None:
        self._recycle()
        given: Dict[ProcessHandle, List[Task]] = {}
        while waiting:
            worker = self._take_free(self.prefetch if len(waiting) > reserve else 1)
            if worker is None:
                break
            task = waiting.popleft()
            task.is_alone |= self._unclear_deaths >= _MAX_UNCLEAR_DEATHS
            if not worker.tasks:
                worker.start_waiting()
            worker.tasks.append(task)
            self._offer(worker)
            given.setdefault(worker, []).append(task)
            if not self.sends_in_bulk():
                self._send_tasks(given)
        self._send_tasks(given)

    @in_stage(SENDING)
    def _send_tasks(self, given: Dict[ProcessHandle, List[Task]]) -> None:
        while given:
            worker, tasks = given.popitem()
            message = dumps([(*task.batch.to_message(), task.is_alone) for task in tasks])
            current().count_sent(len(message))
            self.send(worker, message)

    def _take_free(self, prefetch: int) -> Optional[ProcessHandle]:
        """A worker that has less than `prefetch` batches, an idle one if there is one."""
        while self._idle:
            worker = self._idle.popleft()
            if not worker.tasks and self._may_take(worker):
                return worker
        if len(self._workers) < self._size:
            self._start(len(self._workers))
            return self._idle.pop()
        while prefetch > 1 and self._underfilled:
            worker, _ = self._underfilled.popitem(last=False)
            if 0 < len(worker.tasks) < prefetch and self._may_take(worker):
                return worker
        return None

    def _may_take(self, worker: ProcessHandle) -> bool:
        left = self._max_batches is None or worker.finished + len(worker.tasks) < self._max_batches
        return left and worker.kill_at is None

    def send(self, worker: ProcessHandle, message: bytes) -> None:
        if not worker.process.channel.send(message):
            self._watch(worker, writing=True)

    def sends_in_bulk(self) -> bool:
        """
        Whether several batches go to a worker in one message: they are so short that to send each
        by itself would take the most time, or are predicted in groups.
        """
        return self.prefetch > PREFETCH

    @overrides
    def looks_ahead(self) -> int:
        return self.prefetch * self._size if self.sends_in_bulk() else 0

    @overrides
    def is_saturated(self) -> bool:
        has_idle = bool(self._idle) or len(self._workers) < self._size
        return self.sends_in_bulk() and not has_idle

    @overrides
    def reads_before_handing_out(self) -> bool:
        return self._max_batches is not None  # a result may say that its process has to stay

    @overrides
    def keep_processes(self) -> None:
        self._max_batches = None

    def _offer(self, worker: ProcessHandle) -> None:
        if not worker.tasks:
            self._idle.append(worker)
        elif len(worker.tasks) < self.prefetch:
            self._underfilled[worker] = None

    def _finished(self, worker: ProcessHandle, message: memoryview) -> WorkerEvent:
        worker.deaths_in_a_row = 0
        worker.finished += 1
        task = worker.tasks.popleft()
        if self._max_batches is not None and worker.finished >= self._max_batches:
            self._due.append(worker)
        else:
            self._offer(worker)
        return WorkerEvent(worker, task, message)

    def _update_prefetch(self, worker: ProcessHandle, count: int) -> None:
        """The worker has finished so many batches since it finished some before."""
        seconds, worker.finished_at = (worker.since - worker.finished_at) / count, worker.since
        self._batch_seconds += min(1.0, _SMOOTHING * count) * (seconds - self._batch_seconds)
        enough = int(_BUFFERED_SECONDS / max(self._batch_seconds, 1e-6))
        least = self._min_prefetch if self._batch_seconds < _SLOW else PREFETCH
        self.prefetch = max(least, min(_MAX_PREFETCH, enough))

    def _recycle(self) -> None:
        while self._due:
            worker = self._due.pop()
            if self._max_batches is None:
                self._offer(worker)
            elif worker.finished >= self._max_batches:
                worker.process.channel.finish()
                self._retired.append(worker.process)
                self._replace_process(worker)

    @overrides
    def replace(self, worker: WorkerHandle) -> None:
        assert isinstance(worker, ProcessHandle)
        self.restarts += 1
        self._replace_process(worker)

    def _replace_process(self, worker: ProcessHandle) -> None:
        self._selector.unregister(worker.process.channel.socket)
        worker.process.channel.close()
        self._start(worker.number)

    @overrides
    def wait(self, timeout: Optional[float], wake: Sequence[int]) -> List[WorkerEvent]:
        for fileno in wake:
            self._selector.register(fileno, selectors.EVENT_READ)
        until_look = max(0.0, self._next_look - time.monotonic())
        try:
            ready = self._selector.select(
                until_look if timeout is None else min(timeout, until_look)
            )
        finally:
            for fileno in wake:
                self._selector.unregister(fileno)
        events: List[WorkerEvent] = []
        for key, mask in ready:
            if key.data is not None:
                events += self._look_at(key.data, mask)
        now = time.monotonic()
        late = now - self._next_look
        if late >= 0:
            if late > self._tick:
                # This process was held up, as by Ctrl-Z or a slow reader of its output. That is
                # nothing to blame the workers for.
                for worker in self._workers:
                    worker.since = min(now, worker.since + late)
            self._next_look = now + self._tick
            events += self._look_around(now, events)
        return events

    def _look_at(self, worker: ProcessHandle, mask: int) -> List[WorkerEvent]:
        if mask & selectors.EVENT_WRITE and worker.process.channel.flush():
            self._watch(worker, writing=False)
        if not mask & selectors.EVENT_READ:
            return []
        messages, ended = worker.process.channel.receive()
        if ended and worker.process.wait(_GRACE) is None:
            worker.process.signal(signal.SIGKILL)  # it lives, but can no longer be talked to
            worker.process.wait(_GRACE)
        return self._events(worker, messages, ended)

    def _events(
        self, worker: ProcessHandle, messages: List[memoryview], ended: bool
    ) -> List[WorkerEvent]:
        results = [message for message in messages if message != READY]
        if len(results) < len(messages):
            worker.is_ready = True
            self._slowest_load = max(self._slowest_load or 0.0, time.monotonic() - worker.since)
        worker.start_waiting()  # even a part of a message is a sign of life
        if results:
            self._update_prefetch(worker, len(results))
        # A predictor may have written what looks like a result: there are no more than tasks.
        events = [self._finished(worker, result) for result in results[: len(worker.tasks)]]
        if ended:
            events.append(WorkerEvent(worker, death=self._death(worker)))
        return events

    def _death(self, worker: ProcessHandle) -> WorkerDeath:
        is_unclear = worker.is_unclear(self._group_size)
        if is_unclear:
            self._unclear_deaths += 1
        death = worker.death(is_unclear, self._batch_timeout)
        for task in worker.tasks if is_unclear else ():
            task.is_alone = True
        return death

    def _watch(self, worker: ProcessHandle, writing: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        self._selector.modify(worker.process.channel.socket, events, worker)

    def _look_around(self, now: float, seen: List[WorkerEvent]) -> List[WorkerEvent]:
        self._retired = [process for process in self._retired if process.poll() is None]
        known = [event.worker for event in seen if event.death is not None]
        events = []
        for worker in self._workers:
            if worker in known:
                continue
            if worker.process.poll() is not None:
                # What it sent before it ended is still there, perhaps the end of a large result.
                messages, _ = worker.process.channel.receive(everything=True)
                events += self._events(worker, messages, ended=True)
            elif worker.tasks or not worker.is_ready:
                self._check_time(worker, now)
        return events

    def _check_time(self, worker: ProcessHandle, now: float) -> None:
        quiet = now - worker.since
        if worker.kill_at is not None:
            if now >= worker.kill_at:
                worker.process.signal(signal.SIGKILL)
        elif self._batch_timeout and quiet > self._limit(worker, self._batch_timeout):
            worker.overdue = worker.tasks[0] if worker.tasks else None
            worker.kill_at = now + _GRACE
            worker.process.signal(signal.SIGTERM)
        elif quiet > worker.report_after:
            worker.report_after *= 2
            what = worker.tasks[0].batch.describe() if worker.is_ready else "loading the model"
            logger.warning("%s has shown no life for %.0f s: %s", worker, quiet, what)

    def _limit(self, worker: ProcessHandle, batch_timeout: float) -> float:
        if worker.is_ready:
            return batch_timeout
        if self._slowest_load is None:
            return max(batch_timeout, _LONGEST_LOAD)
        return batch_timeout + 5.0 + 10.0 * self._slowest_load

    @overrides
    def close(self) -> None:
        processes = [worker.process for worker in self._workers] + self._retired
        for worker in self._workers:
            worker.process.channel.finish()
            if not worker.is_ready:
                worker.process.signal(signal.SIGTERM)  # nobody needs what it is loading
        deadline = time.monotonic() + _GRACE
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    @overrides
    def kill(self) -> None:
        _end([worker.process for worker in self._workers] + self._retired)
        for worker in self._workers:
            worker.process.channel.close()
        self._selector.close()
        self._workers, self._retired, self._due = [], [], []


def _end(processes: List[WorkerProcess]) -> None:
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + _GRACE / 2
    for process in processes:
        process.wait(max(0.0, deadline - time.monotonic()))
        process.signal(signal.SIGKILL)
    for process in processes:
        process.wait(_GRACE)
