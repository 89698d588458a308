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
from typing import Callable, Deque, List, NamedTuple, Optional, Sequence

from allennlp_parallel_predict.executors.pool.worker_process import WorkerProcess
from allennlp_parallel_predict.executors.retries import Task
from allennlp_parallel_predict.executors.supervised import PREFETCH
from allennlp_parallel_predict.worker.process import READY

logger = logging.getLogger(__name__)

_GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL."""
_TICK = 0.25
"""Seconds after which a wait looks around, whatever happens."""
_LONGEST_LOAD = 600.0
"""Seconds that loading the model may take, with a `batch_timeout` and if none has managed yet."""
_BUFFERED_SECONDS, _MAX_PREFETCH = 0.01, 32
"""Seconds for which a worker shall have work in hand, and the batches that are enough in any case.
To wake a worker that has run out takes the parent longer than to serve one that has not."""
_SLOW = 0.25
"""Seconds of a batch from which on a worker has no more than one that waits."""
_SMOOTHING = 0.05
_QUIET = 60.0
"""Seconds after which a worker that shows no life is reported; doubled each time."""

Launch = Callable[[int, Sequence[socket.socket]], WorkerProcess]
"""Starts the worker of a number; it gets the sockets that the worker must not keep."""


class WorkerHandle:
    """A place in the pool, and the process that fills it now."""

    def __init__(self, number: int, process: WorkerProcess) -> None:
        self.number = number
        self.tasks: Deque[Task] = deque()
        self.deaths_in_a_row = 0
        self.fill(process)

    def fill(self, process: WorkerProcess) -> None:
        self.process = process
        self.is_ready = False
        self.finished = 0
        self.finished_at = time.monotonic()
        self.kill_at: Optional[float] = None
        self.overdue: Optional[Task] = None
        self.start_waiting()

    def start_waiting(self) -> None:
        """The process has shown life, and the next batch's time begins."""
        self.since = time.monotonic()
        self.report_after = _QUIET

    def suspect(self) -> Optional[Task]:
        """What the process was at when it ended."""
        if not self.is_ready or not self.tasks:
            return None
        if self.kill_at is not None and self.tasks[0] is not self.overdue:
            return None  # it finished the one that took too long before it was ended
        return self.tasks[0]

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.process.pid})"


class Event(NamedTuple):
    """Something that happened to a worker."""

    worker: WorkerHandle
    process: WorkerProcess
    """Its process then; it may have another one by the time that the event is dealt with."""
    message: Optional[memoryview]
    """What it sent, or `None` if its process has ended."""


class WorkerPool:
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
    min_prefetch : `int`, optional (default = `2`)
        The batches that a worker may have unless they are slow.
    """

    def __init__(
        self,
        size: int,
        launch: Launch,
        batch_timeout: Optional[float] = None,
        max_batches: Optional[int] = None,
        min_prefetch: int = PREFETCH,
    ) -> None:
        self.workers: List[WorkerHandle] = []
        self.restarts = 0
        self.prefetch = self._min_prefetch = min_prefetch
        """The batches that a worker may have."""
        self._batch_seconds = 1.0 if min_prefetch == PREFETCH else _SLOW / 2
        self._launch = launch
        self._batch_timeout = batch_timeout
        self.max_batches = max_batches
        self._tick = min(_TICK, batch_timeout / 4 if batch_timeout else _TICK)
        self._slowest_load: Optional[float] = None
        self._selector = selectors.DefaultSelector()
        # Members that may have fewer batches than they can hold; looked over when taken out.
        self._idle: Deque[WorkerHandle] = deque()
        self._underfilled: "OrderedDict[WorkerHandle, None]" = OrderedDict()
        self._retired: List[WorkerProcess] = []
        self._next_look = time.monotonic() + self._tick
        try:
            for number in range(size):
                self._start(number)
        except BaseException:
            self.kill()
            raise

    def _start(self, number: int) -> None:
        inherited = [worker.process.channel.socket for worker in self.workers]
        process = self._launch(number, inherited)
        if number == len(self.workers):
            self.workers.append(WorkerHandle(number, process))
        else:
            self.workers[number].fill(process)
        worker = self.workers[number]
        self._selector.register(process.channel.socket, selectors.EVENT_READ, worker)
        self._idle.append(worker)

    def take_free(self, prefetch: int) -> Optional[WorkerHandle]:
        """A worker that has less than `prefetch` batches, an idle one if there is one."""
        while self._idle:
            worker = self._idle.popleft()
            if not worker.tasks and self._may_take(worker):
                return worker
        while prefetch > 1 and self._underfilled:
            worker, _ = self._underfilled.popitem(last=False)
            if 0 < len(worker.tasks) < prefetch and self._may_take(worker):
                return worker
        return None

    def _may_take(self, worker: WorkerHandle) -> bool:
        left = self.max_batches is None or worker.finished + len(worker.tasks) < self.max_batches
        return left and worker.kill_at is None

    def give(self, worker: WorkerHandle, task: Task) -> None:
        """Gives a worker its next task, which is to be sent to it."""
        if not worker.tasks:
            worker.start_waiting()
        worker.tasks.append(task)
        self._offer(worker)

    def send(self, worker: WorkerHandle, message: bytes) -> None:
        if not worker.process.channel.send(message):
            self._watch(worker, writing=True)

    def sends_in_bulk(self) -> bool:
        """
        Whether several batches go to a worker at once: they are so short that to send each by
        itself would take the most time, or are predicted in lockstep.
        """
        return self.prefetch > PREFETCH

    def has_idle(self) -> bool:
        return bool(self._idle)

    def _offer(self, worker: WorkerHandle) -> None:
        if not worker.tasks:
            self._idle.append(worker)
        elif len(worker.tasks) < self.prefetch:
            self._underfilled[worker] = None

    def finish_task(self, worker: WorkerHandle) -> Task:
        """Takes the task off the worker's hands that it has just finished."""
        worker.deaths_in_a_row = 0
        worker.finished += 1
        task = worker.tasks.popleft()
        if self.max_batches is not None and worker.finished >= self.max_batches:
            self._recycle(worker)
        else:
            self._offer(worker)
        return task

    def _update_prefetch(self, worker: WorkerHandle, count: int) -> None:
        """The worker has finished so many batches since it finished some before."""
        seconds, worker.finished_at = (worker.since - worker.finished_at) / count, worker.since
        self._batch_seconds += min(1.0, _SMOOTHING * count) * (seconds - self._batch_seconds)
        enough = int(_BUFFERED_SECONDS / max(self._batch_seconds, 1e-6))
        least = self._min_prefetch if self._batch_seconds < _SLOW else PREFETCH
        self.prefetch = max(least, min(_MAX_PREFETCH, enough))

    def _recycle(self, worker: WorkerHandle) -> None:
        worker.process.channel.finish()
        self._retired.append(worker.process)
        self._replace_process(worker)

    def replace(self, worker: WorkerHandle) -> None:
        """Fills the place of a worker whose process has ended."""
        self.restarts += 1
        self._replace_process(worker)

    def _replace_process(self, worker: WorkerHandle) -> None:
        self._selector.unregister(worker.process.channel.socket)
        worker.process.channel.close()
        self._start(worker.number)

    def wait(self, timeout: Optional[float], wake: Sequence[int]) -> List[Event]:
        """Waits until a worker sends something or ends, a `wake` can be read, or time is up."""
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
        events: List[Event] = []
        for key, mask in ready:
            if key.data is not None:
                events += self._look_at(key.data, mask)
        now = time.monotonic()
        late = now - self._next_look
        if late >= 0:
            if late > self._tick:
                # This process was held up, as by Ctrl-Z or a slow reader of its output. That is
                # nothing to blame the workers for.
                for worker in self.workers:
                    worker.since = min(now, worker.since + late)
            self._next_look = now + self._tick
            events += self._look_around(now, events)
        return events

    def _look_at(self, worker: WorkerHandle, mask: int) -> List[Event]:
        if mask & selectors.EVENT_WRITE and worker.process.channel.flush():
            self._watch(worker, writing=False)
        if not mask & selectors.EVENT_READ:
            return []
        messages, ended = worker.process.channel.receive()
        if ended and worker.process.wait(_GRACE) is None:
            worker.process.signal(signal.SIGKILL)  # it lives, but can no longer be talked to
            worker.process.wait(_GRACE)
        return self._events(worker, messages, ended)

    def _events(self, worker: WorkerHandle, messages: List[memoryview], ended: bool) -> List[Event]:
        events = [Event(worker, worker.process, text) for text in messages if text != READY]
        if len(events) < len(messages):
            worker.is_ready = True
            self._slowest_load = max(self._slowest_load or 0.0, time.monotonic() - worker.since)
        worker.start_waiting()  # even a part of a message is a sign of life
        if events:
            self._update_prefetch(worker, len(events))
        if ended:
            events.append(Event(worker, worker.process, None))
        return events

    def _watch(self, worker: WorkerHandle, writing: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        self._selector.modify(worker.process.channel.socket, events, worker)

    def _look_around(self, now: float, seen: List[Event]) -> List[Event]:
        self._retired = [process for process in self._retired if process.poll() is None]
        known = [event.worker for event in seen if event.message is None]
        events = []
        for worker in self.workers:
            if worker in known:
                continue
            if worker.process.poll() is not None:
                # What it sent before it ended is still there, perhaps the end of a large result.
                messages, _ = worker.process.channel.receive(everything=True)
                events += self._events(worker, messages, ended=True)
            elif worker.tasks or not worker.is_ready:
                self._check_time(worker, now)
        return events

    def _check_time(self, worker: WorkerHandle, now: float) -> None:
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

    def _limit(self, worker: WorkerHandle, batch_timeout: float) -> float:
        if worker.is_ready:
            return batch_timeout
        if self._slowest_load is None:
            return max(batch_timeout, _LONGEST_LOAD)
        return batch_timeout + 5.0 + 10.0 * self._slowest_load

    def close(self) -> None:
        """Lets the processes end by themselves, for a while."""
        processes = [worker.process for worker in self.workers] + self._retired
        for worker in self.workers:
            worker.process.channel.finish()
            if not worker.is_ready:
                worker.process.signal(signal.SIGTERM)  # nobody needs what it is loading
        deadline = time.monotonic() + _GRACE
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """Ends every process, with SIGTERM and then SIGKILL."""
        _end([worker.process for worker in self.workers] + self._retired)
        for worker in self.workers:
            worker.process.channel.close()
        self._selector.close()
        self.workers, self._retired = [], []


def _end(processes: List[WorkerProcess]) -> None:
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = time.monotonic() + _GRACE / 2
    for process in processes:
        process.wait(max(0.0, deadline - time.monotonic()))
        process.signal(signal.SIGKILL)
    for process in processes:
        process.wait(_GRACE)


def describe_end(process: WorkerProcess) -> str:
    """How a process ended, in words."""
    status = process.poll()
    if status is None or status >= 0:
        return f"ended with exit status {status}" if status else "ended before its work was done"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = ", perhaps for want of memory" if -status == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"
