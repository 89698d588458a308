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
from typing import Callable, Deque, List, Optional, Sequence

from overrides import overrides

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
_SLOW, _SMOOTHING = 0.25, 0.05
"""Seconds of a batch from which on workers do not have two groups of them."""
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
        *,
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
        self.prefetch = PREFETCH * group_size
        self._batch_seconds = 0.0
        self._launch = launch
        self._batch_timeout = batch_timeout
        self._max_batches = max_batches
        self._tick = min(_TICK, batch_timeout / 4 if batch_timeout else _TICK)
        self._slowest_load: Optional[float] = None
        self._selector = selectors.DefaultSelector()
        self._retired: List[WorkerProcess] = []
        self._next_look = time.monotonic() + self._tick
        for number in range(size if starts_early else 1):
            self._start(number)

    def _start(self, number: int) -> ProcessHandle:
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
        return worker

    @property
    @overrides
    def workers(self) -> Sequence[WorkerHandle]:
        return self._workers

    @overrides
    def hand_out(self, waiting: Deque[Task], reserve: int) -> None:
        if self._max_batches is not None:
            for worker in self._workers:
                if worker.finished >= self._max_batches:
                    worker.process.channel.finish()
                    self._retired.append(worker.process)
                    self._replace_process(worker)
        if self._unclear_deaths >= _MAX_UNCLEAR_DEATHS:
            for task in waiting:
                task.is_alone = True
        super().hand_out(waiting, reserve)

    @overrides
    def _free_worker(self, prefetch: int) -> Optional[WorkerHandle]:
        worker = super()._free_worker(prefetch)
        if (worker is None or worker.tasks) and len(self._workers) < self._size:
            return self._start(len(self._workers))
        return worker

    @overrides
    def _may_take(self, worker: WorkerHandle) -> bool:
        assert isinstance(worker, ProcessHandle)
        given = worker.finished + len(worker.tasks)
        return worker.kill_at is None and (self._max_batches is None or given < self._max_batches)

    @overrides
    def _send(self, worker: WorkerHandle, task: Task, message: bytes) -> None:
        assert isinstance(worker, ProcessHandle)
        if not worker.process.channel.send(message):
            self._watch(worker, writing=True)

    @overrides
    def keep_processes(self) -> None:
        self._max_batches = None

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
        seconds = time.monotonic() - worker.since
        results = [message for message in messages if message != READY]
        if len(results) < len(messages):
            worker.is_ready = True
            self._slowest_load = max(self._slowest_load or 0.0, seconds)
        worker.start_waiting()  # even a part of a message is a sign of life
        if results and self._group_size > 1:
            seconds /= len(results)
            self._batch_seconds += _SMOOTHING * (seconds - self._batch_seconds)
            self.prefetch = PREFETCH * (1 if self._batch_seconds > _SLOW else self._group_size)
        # A predictor may have written what looks like a result: there are no more than tasks.
        tasks = list(worker.tasks)[: len(results)]
        for task in tasks:
            worker.finish_task(task)
        events = [WorkerEvent(worker, *finished) for finished in zip(tasks, results)]
        if ended:
            events.append(WorkerEvent(worker, death=self._death(worker)))
        return events

    def _death(self, worker: ProcessHandle) -> WorkerDeath:
        is_unclear = worker.is_unclear(self._group_size)
        self._unclear_deaths += is_unclear
        for task in worker.tasks if is_unclear else ():
            task.is_alone = True
        return worker.death(is_unclear, self._batch_timeout)

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
        for worker in self._workers:
            worker.process.channel.finish()
            if not worker.is_ready:
                worker.process.signal(signal.SIGTERM)  # nobody needs what it is loading
        _wait_for(self._processes(), _GRACE)
        self.kill()

    @overrides
    def kill(self) -> None:
        processes = self._processes()
        for process in processes:
            process.signal(signal.SIGTERM)
        _wait_for(processes, _GRACE / 2)
        for process in processes:
            process.signal(signal.SIGKILL)
            process.wait(_GRACE)
        for worker in self._workers:
            worker.process.channel.close()
        self._selector.close()
        self._workers, self._retired = [], []

    def _processes(self) -> List[WorkerProcess]:
        return [worker.process for worker in self._workers] + self._retired


def _wait_for(processes: List[WorkerProcess], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for process in processes:
        process.wait(max(0.0, deadline - time.monotonic()))
