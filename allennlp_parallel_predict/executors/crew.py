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

from allennlp_parallel_predict.executors.retries import Task
from allennlp_parallel_predict.executors.supervised import IN_HAND
from allennlp_parallel_predict.executors.worker_process import READY, WorkerProcess

logger = logging.getLogger(__name__)

_GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL."""
_TICK = 0.25
"""Seconds after which a wait looks around, whatever happens."""
_LONGEST_LOAD = 600.0
"""Seconds that loading the model may take, with a `batch_timeout` and if none has managed yet."""
_BUSY, _MOST_IN_HAND = 0.01, 32
"""Seconds for which a worker shall have work in hand, and the batches that are enough in any case.
To wake a worker that has run out takes the parent longer than to serve one that has not."""
_SLOW = 0.25
"""Seconds of a batch from which on a member has no more than one that waits."""
_SMOOTHING = 0.05
_QUIET = 60.0
"""Seconds after which a worker that shows no life is reported; doubled each time."""

Launch = Callable[[int, Sequence[socket.socket]], WorkerProcess]
"""Starts the worker of a number; it gets the sockets that the worker must not keep."""


class Member:
    """A place in the crew, and the process that fills it now."""

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

    def task_to_blame(self) -> Optional[Task]:
        """What the process was at when it ended."""
        if not self.is_ready or not self.tasks:
            return None
        if self.kill_at is not None and self.tasks[0] is not self.overdue:
            return None  # it finished the one that took too long before it was ended
        return self.tasks[0]

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.process.pid})"


class Event(NamedTuple):
    """Something that happened to a member."""

    member: Member
    process: WorkerProcess
    """Its process then; it may have another one by the time that the event is dealt with."""
    message: Optional[memoryview]
    """What it sent, or `None` if its process has ended."""


class Crew:
    """
    # Parameters

    size : `int`
        The number of members.
    launch : `Launch`
        How to start one.
    batch_timeout : `float`, optional (default = `None`)
        The seconds that a batch may take.
    max_batches : `int`, optional (default = `None`)
        The batches after which a process is replaced.
    least_in_hand : `int`, optional (default = `2`)
        The batches that a member may have unless they are slow.
    """

    def __init__(
        self,
        size: int,
        launch: Launch,
        batch_timeout: Optional[float] = None,
        max_batches: Optional[int] = None,
        least_in_hand: int = IN_HAND,
    ) -> None:
        self.members: List[Member] = []
        self.restarts = 0
        self.in_hand = self._least_in_hand = least_in_hand
        """The batches that a member may have."""
        self._batch_seconds = 1.0 if least_in_hand == IN_HAND else _SLOW / 2
        self._launch = launch
        self._batch_timeout = batch_timeout
        self.max_batches = max_batches
        self._tick = min(_TICK, batch_timeout / 4 if batch_timeout else _TICK)
        self._slowest_load: Optional[float] = None
        self._selector = selectors.DefaultSelector()
        # Members that may have fewer batches than they can hold; looked over when taken out.
        self._idle: Deque[Member] = deque()
        self._hungry: "OrderedDict[Member, None]" = OrderedDict()
        self._retired: List[WorkerProcess] = []
        self._next_look = time.monotonic() + self._tick
        try:
            for number in range(size):
                self._start(number)
        except BaseException:
            self.kill()
            raise

    def _start(self, number: int) -> None:
        inherited = [member.process.channel.socket for member in self.members]
        process = self._launch(number, inherited)
        if number == len(self.members):
            self.members.append(Member(number, process))
        else:
            self.members[number].fill(process)
        member = self.members[number]
        self._selector.register(process.channel.socket, selectors.EVENT_READ, member)
        self._idle.append(member)

    def take_free(self, in_hand: int) -> Optional[Member]:
        """A member that has less than `in_hand` batches, an idle one if there is one."""
        while self._idle:
            member = self._idle.popleft()
            if not member.tasks and self._may_take(member):
                return member
        while in_hand > 1 and self._hungry:
            member, _ = self._hungry.popitem(last=False)
            if 0 < len(member.tasks) < in_hand and self._may_take(member):
                return member
        return None

    def _may_take(self, member: Member) -> bool:
        left = self.max_batches is None or member.finished + len(member.tasks) < self.max_batches
        return left and member.kill_at is None

    def give(self, member: Member, task: Task) -> None:
        """Gives a member its next task, which is to be sent to it."""
        if not member.tasks:
            member.start_waiting()
        member.tasks.append(task)
        self._offer(member)

    def send(self, member: Member, message: bytes) -> None:
        if not member.process.channel.send(message):
            self._watch(member, writing=True)

    def is_hurried(self) -> bool:
        """
        Whether several batches go to a worker at once: they are so short that to send each by
        itself would take the most time, or are predicted in lockstep.
        """
        return self.in_hand > IN_HAND

    def has_idle(self) -> bool:
        return bool(self._idle)

    def _offer(self, member: Member) -> None:
        if not member.tasks:
            self._idle.append(member)
        elif len(member.tasks) < self.in_hand:
            self._hungry[member] = None

    def finish_task(self, member: Member) -> Task:
        """Takes the task off the member's hands that it has just finished."""
        member.deaths_in_a_row = 0
        member.finished += 1
        task = member.tasks.popleft()
        if self.max_batches is not None and member.finished >= self.max_batches:
            self._recycle(member)
        else:
            self._offer(member)
        return task

    def _note_pace(self, member: Member, count: int) -> None:
        """The member has finished so many batches since it finished some before."""
        seconds, member.finished_at = (member.since - member.finished_at) / count, member.since
        self._batch_seconds += min(1.0, _SMOOTHING * count) * (seconds - self._batch_seconds)
        enough = int(_BUSY / max(self._batch_seconds, 1e-6))
        least = self._least_in_hand if self._batch_seconds < _SLOW else IN_HAND
        self.in_hand = max(least, min(_MOST_IN_HAND, enough))

    def _recycle(self, member: Member) -> None:
        member.process.channel.finish()
        self._retired.append(member.process)
        self._replace_process(member)

    def replace(self, member: Member) -> None:
        """Fills the place of a member whose process has ended."""
        self.restarts += 1
        self._replace_process(member)

    def _replace_process(self, member: Member) -> None:
        self._selector.unregister(member.process.channel.socket)
        member.process.channel.close()
        self._start(member.number)

    def wait(self, timeout: Optional[float], wake: Sequence[int]) -> List[Event]:
        """Waits until a member sends something or ends, a `wake` can be read, or time is up."""
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
                for member in self.members:
                    member.since = min(now, member.since + late)
            self._next_look = now + self._tick
            events += self._look_around(now, events)
        return events

    def _look_at(self, member: Member, mask: int) -> List[Event]:
        if mask & selectors.EVENT_WRITE and member.process.channel.flush():
            self._watch(member, writing=False)
        if not mask & selectors.EVENT_READ:
            return []
        messages, ended = member.process.channel.receive()
        if ended and member.process.wait(_GRACE) is None:
            member.process.signal(signal.SIGKILL)  # it lives, but can no longer be talked to
            member.process.wait(_GRACE)
        return self._events(member, messages, ended)

    def _events(self, member: Member, messages: List[memoryview], ended: bool) -> List[Event]:
        events = [Event(member, member.process, text) for text in messages if text != READY]
        if len(events) < len(messages):
            member.is_ready = True
            self._slowest_load = max(self._slowest_load or 0.0, time.monotonic() - member.since)
        member.start_waiting()  # even a part of a message is a sign of life
        if events:
            self._note_pace(member, len(events))
        if ended:
            events.append(Event(member, member.process, None))
        return events

    def _watch(self, member: Member, writing: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        self._selector.modify(member.process.channel.socket, events, member)

    def _look_around(self, now: float, seen: List[Event]) -> List[Event]:
        self._retired = [process for process in self._retired if process.poll() is None]
        known = [event.member for event in seen if event.message is None]
        events = []
        for member in self.members:
            if member in known:
                continue
            if member.process.poll() is not None:
                # What it sent before it ended is still there, perhaps the end of a large result.
                messages, _ = member.process.channel.receive(everything=True)
                events += self._events(member, messages, ended=True)
            elif member.tasks or not member.is_ready:
                self._check_time(member, now)
        return events

    def _check_time(self, member: Member, now: float) -> None:
        quiet = now - member.since
        if member.kill_at is not None:
            if now >= member.kill_at:
                member.process.signal(signal.SIGKILL)
        elif self._batch_timeout and quiet > self._limit(member, self._batch_timeout):
            member.overdue = member.tasks[0] if member.tasks else None
            member.kill_at = now + _GRACE
            member.process.signal(signal.SIGTERM)
        elif quiet > member.report_after:
            member.report_after *= 2
            what = member.tasks[0].batch.describe() if member.is_ready else "loading the model"
            logger.warning("%s has shown no life for %.0f s: %s", member, quiet, what)

    def _limit(self, member: Member, batch_timeout: float) -> float:
        if member.is_ready:
            return batch_timeout
        if self._slowest_load is None:
            return max(batch_timeout, _LONGEST_LOAD)
        return batch_timeout + 5.0 + 10.0 * self._slowest_load

    def close(self) -> None:
        """Lets the processes end by themselves, for a while."""
        processes = [member.process for member in self.members] + self._retired
        for member in self.members:
            member.process.channel.finish()
            if not member.is_ready:
                member.process.signal(signal.SIGTERM)  # nobody needs what it is loading
        deadline = time.monotonic() + _GRACE
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
        self.kill()

    def kill(self) -> None:
        """Ends every process, with SIGTERM and then SIGKILL."""
        _end([member.process for member in self.members] + self._retired)
        for member in self.members:
            member.process.channel.close()
        self._selector.close()
        self.members, self._retired = [], []


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
