"""
One thread that drives an executor for callers in any other thread.

    callers                the dispatcher's thread
    submit ─► inbox ─► waiting ─► groups ─► executor ─► results ─► the callers' futures
                │                               ▲
                └─ a byte ends `collect` ───────┘

The thread starts the workers and lives as long as they do, which matters: the kernel ends a worker
with the thread that started it. It refers to the dispatcher only, so a predictor that nobody uses
any more is garbage-collected, and tells the dispatcher to end.
"""

import atexit
import os
import pickle
import socket
import sys
import threading
import time
import weakref
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Counter, Deque, Dict, List, NamedTuple, Optional

from allennlp.predictors import Predictor

from allennlp_parallel_predict.api.request_queue import DynamicBatcher, Request
from allennlp_parallel_predict.common.errors import PredictorClosed, QueueFull, WorkerDied
from allennlp_parallel_predict.common.messages import Batch, BatchResult, OnError, WorkerOptions
from allennlp_parallel_predict.executors import Executor

_RECENT = 1000
"""The calls over which latencies are counted."""
_PATIENCE = 5.0
"""Seconds that the interpreter's exit waits for the workers' end."""


class Statistics(NamedTuple):
    """What a predictor has done so far, and what it is doing."""

    workers: int
    restarts: int
    waiting: int
    """Inputs that no worker has yet."""
    in_work: int
    """Batches that workers have."""
    inputs: int
    """Inputs that are finished."""
    failures: int
    """Those of them that failed."""
    batch_sizes: Dict[int, int]
    """How many batches of each size there were."""
    latencies: Dict[str, float]
    """Seconds from a call to its result, of the last 1000 calls: `"p50"`, `"p95"`, `"p99"`."""


class Dispatcher:
    """
    # Parameters

    executor : `Executor`
        What runs the batches. From here on it belongs to the dispatcher's thread.
    load : `Callable[[], Predictor]`
        Loads the predictor, in that thread.
    exact : `bool`, optional (default = `True`)
        Whether results have to be the predictor's to the last bit. Merged requests' need not.
    max_batch_size : `int`, optional (default = `1`)
        The number of inputs up to which requests are merged.
    max_queue_delay : `float`, optional (default = `0.0`)
        The seconds that a worker stays idle to see whether a batch becomes full.
    max_waiting : `int`, optional (default = `None`)
        The number of inputs that may wait for a worker.
    """

    def __init__(
        self,
        executor: Executor,
        load: Callable[[], Predictor],
        exact: bool = True,
        max_batch_size: int = 1,
        max_queue_delay: float = 0.0,
        max_waiting: Optional[int] = None,
    ) -> None:
        self.executor = executor
        self.started: "Future[None]" = _result_only()
        """Done when the workers are started, or with what went wrong."""
        self.ended: "Future[None]" = _result_only()
        """Done when there are no more workers."""
        self._load = load
        self._exact = exact and max_batch_size == 1
        self._max_waiting = max_waiting
        self._pid = os.getpid()
        self._lock = threading.Lock()
        # Of all threads, with the lock:
        self._inbox: Deque[Request] = deque()
        self._waiting_inputs = 0
        self._end_reason: Optional[BaseException] = None
        # Of the dispatcher's thread:
        self._queue = DynamicBatcher(max_batch_size, max_queue_delay)
        self._in_work: Dict[int, List[Request]] = {}
        self._next_number = 0
        self._finished_since_start = 0
        self._restarts_before = 0
        self._inputs = self._failures = 0
        self._batch_sizes: Counter[int] = Counter()
        self._latencies: Deque[float] = deque(maxlen=_RECENT)
        # Without the lock, as the garbage collector may call `kill` at any moment:
        self._is_closing = self._is_killed = self._is_woken = False
        self._wakeup_sender, self._wakeup_receiver = socket.socketpair()
        self._wakeup_sender.setblocking(False)
        self._wakeup_receiver.setblocking(False)
        # A daemon, so that it can still work while the interpreter waits for the other threads.
        self._thread = threading.Thread(target=self._run, name="parallel-predict", daemon=True)
        _alive.add(self)
        self._thread.start()

    # What any thread may call.

    def submit(self, request: Request) -> "Future[List[Any]]":
        """
        # Raises

        `PredictorClosed`
            If the predictor is closed.
        `QueueFull`
            If `max_waiting` inputs wait already.
        """
        if os.getpid() != self._pid:
            raise PredictorClosed("this predictor belongs to the process that forked this one")
        count = len(request.values)
        with self._lock:
            if self._end_reason is not None or self._is_closing or self._is_killed:
                raise PredictorClosed(f"{self._end_reason or _CLOSED}") from self._end_reason
            if request.is_limited and self._is_full(count):
                raise QueueFull(f"{self._waiting_inputs} inputs wait for a worker already")
            self._waiting_inputs += count
            self._inbox.append(request)
        request.future.add_done_callback(lambda future: self._after_cancel(future, request))
        self._wake()
        return request.future

    def _is_full(self, count: int) -> bool:
        if self._max_waiting is None or not self._waiting_inputs:
            return False  # whatever its size, there has to be a time at which a call is let in
        return self._waiting_inputs + count > self._max_waiting

    def _after_cancel(self, future: "Future[List[Any]]", request: Request) -> None:
        if future.cancelled():
            with self._lock:
                self._waiting_inputs -= len(request.values)
            request.values = []

    def close(self) -> None:
        """Lets the thread finish everything that was submitted, and end. Does not wait for it."""
        if os.getpid() != self._pid:  # the thread and the workers are those of the parent
            if not self.ended.done():
                self.ended.set_result(None)
            return
        self._is_closing = True
        self._wake()

    def kill(self) -> None:
        """Lets the thread end at once. Does not wait for it."""
        self._is_killed = True
        self._wake()

    def statistics(self) -> Statistics:
        latencies = sorted(self._latencies)
        at = {f"p{p}": latencies[len(latencies) * p // 100] for p in (50, 95, 99) if latencies}
        workers, restarts = 0, 0
        if self.started.done() and not self.ended.done() and not self.started.exception():
            workers, restarts = self.executor.counts()
        return Statistics(
            workers,
            restarts + self._restarts_before,
            self._waiting_inputs,
            len(self._in_work),
            self._inputs,
            self._failures,
            dict(self._batch_sizes),
            at,
        )

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            try:
                self._wakeup_sender.send(b"!")
            except OSError:
                pass  # it has more than enough bells to wake up by, or has ended

    # What only the dispatcher's thread does.

    def _run(self) -> None:
        reason: BaseException = PredictorClosed(_CLOSED)
        try:
            with self.executor.preparing():
                self._predictor = self._load()
                del self._load
                self._start()
            self.started.set_result(None)
            self._serve()
            if not self._is_killed:
                self.executor.close()
        except BaseException as error:
            reason = error
        try:
            self.executor.kill()
        finally:
            self._end(reason)

    def _start(self) -> None:
        self.executor.preserve_order = False
        # Calls shall wait here, where they are gathered into batches and can be cancelled.
        self.executor.hold_back_last = False
        options = WorkerOptions(OnError.SKIP, exact=self._exact)
        self.executor.start(self._predictor, options)
        self._finished_since_start = 0

    def _serve(self) -> None:
        while not self._is_killed:
            timeout = self._fill()
            if self._is_closing and not (self._in_work or self._queue or self._inbox):
                return
            try:
                results = self.executor.collect(timeout, wake=[self._wakeup_receiver.fileno()])
            except WorkerDied as error:
                self._start_over(error)
                continue
            finished = [(result, self._in_work.pop(result.number)) for result in results]
            # The workers shall not wait until the results are unpacked.
            self._fill()
            for result, requests in finished:
                try:
                    self._finish(result, requests)
                except Exception as error:  # such as that of a stdout that takes no more
                    for request in requests:
                        if not request.future.done():
                            request.future.set_exception(error)

    def _start_over(self, error: WorkerDied) -> None:
        """Workers that could work have died too often: those who wait are told, others are not."""
        if not self._finished_since_start:
            raise error
        self._restarts_before += self.executor.counts().restarts + 1
        self.executor.kill()
        for requests in self._in_work.values():
            for request in requests:
                request.future.set_exception(error)
        self._in_work.clear()
        self._start()

    def _fill(self) -> Optional[float]:
        """
        Submits what can be submitted; returns the time after which there may be more without
        anything having happened.
        """
        self._open_inbox()
        while self.executor.has_room():
            has_idle = len(self._in_work) < self.executor.num_workers
            requests = self._queue.take(has_idle, in_hurry=self._is_closing)
            if not requests:
                return self._queue.patience
            self._submit(requests)
        return None

    def _open_inbox(self) -> None:
        try:
            self._wakeup_receiver.recv(64)
        except BlockingIOError:
            pass
        # Only now: who rings from here on rings for what is not seen below.
        self._is_woken = False
        while self._inbox:
            self._queue.add(self._inbox.popleft())

    def _submit(self, requests: List[Request]) -> None:
        requests = [
            request for request in requests if request.future.set_running_or_notify_cancel()
        ]
        if not requests:
            return
        values = [value for request in requests for value in request.values]
        with self._lock:
            self._waiting_inputs -= len(values)
        lines = requests[0].line_numbers if len(requests) == 1 else range(1, len(values) + 1)
        number, self._next_number = self._next_number, self._next_number + 1
        self._in_work[number] = requests
        self.executor.submit(Batch(number, requests[0].kind, values, range(len(values)), lines))

    def _finish(self, result: BatchResult, requests: List[Request]) -> None:
        size = sum(len(request.values) for request in requests)
        if result.printed:
            sys.stdout.write("".join(result.printed.values()))
        failures = {failure.offset: failure.error for failure in result.failures}
        if result.fatal is not None:
            failures = {offset: result.fatal.error for offset in range(size)}
        self._finished_since_start += 1
        self._inputs += size
        self._failures += len(failures)
        self._batch_sizes[size] += 1
        offset = 0
        for request in requests:
            outputs: List[Any] = []
            for number in request.line_numbers:
                if offset in failures:
                    outputs.append(failures[offset].rebuild(f"In a worker, at input {number}:"))
                elif offset < len(result.outputs):
                    # One by one, because nothing else can run in this process meanwhile.
                    outputs.append(_loaded(result.outputs[offset]))
                offset += 1
            self._latencies.append(time.monotonic() - request.since)
            request.future.set_result(outputs)

    def _end(self, reason: BaseException) -> None:
        """Tells everybody who waits that there will be nothing more."""
        with self._lock:
            self._end_reason = reason
        self._open_inbox()
        waiting = [j for j in self._queue.take_all() if j.future.set_running_or_notify_cancel()]
        for request in [
            request for requests in self._in_work.values() for request in requests
        ] + waiting:
            request.future.set_exception(reason)
        if not self.started.done():
            self.started.set_exception(reason)
        self._wakeup_sender.close()
        self._wakeup_receiver.close()
        _alive.discard(self)
        self.ended.set_result(None)


_CLOSED = "this predictor is closed"
_alive: "weakref.WeakSet[Dispatcher]" = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    dispatchers = [dispatcher for dispatcher in _alive if dispatcher._pid == os.getpid()]
    for dispatcher in dispatchers:
        dispatcher.kill()
    for dispatcher in dispatchers:
        dispatcher._thread.join(_PATIENCE)


def _result_only() -> "Future[None]":
    """A future that nobody who waits for it can cancel."""
    future: "Future[None]" = Future()
    future.set_running_or_notify_cancel()
    return future


def _loaded(pickled: Any) -> Any:
    try:
        return pickle.loads(pickled)
    except Exception as error:
        return error
