"""
One thread that drives an executor for callers in any other thread.

    callers                the dispatcher's thread
    submit ─► inbox ─► waiting ─► groups ─► executor ─► results ─► the callers' futures
                │                               ▲
                └─ a byte ends `collect` ───────┘

The thread starts the workers and lives as long as they do, which matters: the kernel ends a worker
with the thread that started it. The thread refers to the dispatcher only, so a predictor that
nobody uses any more is garbage-collected, and tells the dispatcher to end.
"""

import atexit
import enum
import os
import sys
import threading
import weakref
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Deque, Dict, List, Optional, Tuple

from allennlp.predictors import Predictor

from allennlp_parallel_predict.api.request_queue import (
    DynamicBatcher,
    QueueSettings,
    Request,
    batch_of,
    resolve,
    result_only,
)
from allennlp_parallel_predict.api.statistics import Counts, Statistics
from allennlp_parallel_predict.common.errors import PredictorClosed, QueueFull, WorkerDied
from allennlp_parallel_predict.common.messages import Batch, BatchResult, OnError, WorkerOptions
from allennlp_parallel_predict.common.wakeup import WakeUp
from allennlp_parallel_predict.executors.base import Executor, fill

_PATIENCE = 5.0
"""Seconds that the interpreter's exit waits for the workers' end."""
_MAX_STARTS = 5
"""Starts of a pool whose workers then die without finishing a batch, and pools that one request may
have been in. Workers are also killed from outside, which is no reason to give up at once."""


class State(enum.IntEnum):
    """What a dispatcher does with requests; it only ever rises."""

    OPEN = 0
    CLOSING = 1
    """It finishes those that it has, and takes no more."""
    KILLED = 2
    """It gives up those that it has."""
    ENDED = 3
    """Its workers have ended."""


class Dispatcher:
    """
    # Parameters

    executor : `Executor`
        What runs the batches. From here on it belongs to the dispatcher's thread.
    load : `Callable[[], Predictor]`
        Loads the predictor, in that thread.
    queue : `QueueSettings`
        How requests wait.
    options : `WorkerOptions`, optional
        What workers are told. Results of merged requests are never `exact`.
    """

    def __init__(
        self,
        executor: Executor,
        load: Callable[[], Predictor],
        queue: QueueSettings,
        options: WorkerOptions = WorkerOptions(OnError.SKIP),
    ) -> None:
        self.executor = executor
        self.started: "Future[None]" = result_only()
        """Done when the workers are started, or with the error that prevented it."""
        self.ended: "Future[None]" = result_only()
        """Done when there are no more workers."""
        self._load = load
        self._options = options._replace(exact=options.exact and queue.max_batch_size == 1)
        self._max_waiting = sys.maxsize if queue.max_waiting is None else queue.max_waiting
        self._pid = os.getpid()
        # The garbage collector may call `kill` in a thread that has the lock.
        self._lock = threading.RLock()
        # Of all threads, with the lock:
        self._state = State.OPEN
        self._inbox: Deque[Request] = deque()
        self._abandoned: List[Request] = []
        self._waiting_inputs = 0
        self._end_reason: BaseException = PredictorClosed("this predictor is closed")
        # Of the dispatcher's thread:
        self._queue = DynamicBatcher(queue)
        self._in_work: Dict[int, List[Request]] = {}
        self._finished: Deque[Tuple[BatchResult, List[Request]]] = deque()
        self._next_number = 0
        self._starts = 0
        self._restarts_before = 0
        self._counts = Counts()
        self._wakeup = WakeUp()
        # A daemon, so that it can still work while the interpreter waits for the other threads.
        self._thread = threading.Thread(target=self._run, name="parallel-predict", daemon=True)
        _alive.add(self)
        self._thread.start()

    # Methods for any thread.

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
            if self._state > State.OPEN:
                raise PredictorClosed(str(self._end_reason)) from self._end_reason
            waiting = self._waiting_inputs
            # If none waits, it is let in whatever its size: there has to be a time for it.
            if request.is_limited and waiting and waiting + count > self._max_waiting:
                raise QueueFull(f"{waiting} inputs wait for a worker already")
            self._waiting_inputs = waiting + count
            self._inbox.append(request)
        request.future.add_done_callback(lambda future: self._after_cancel(future, request))
        self._wakeup.set()
        return request.future

    def _after_cancel(self, future: "Future[List[Any]]", request: Request) -> None:
        if future.cancelled():
            with self._lock:
                self._waiting_inputs -= len(request.values)
            request.values = []

    def abandon(self, request: Request) -> None:
        """Nobody waits for the result any more: no worker gets the request from here on."""
        if not request.future.done() and not request.future.cancel():
            with self._lock:
                self._abandoned.append(request)
            self._wakeup.set()

    def close(self) -> None:
        """Lets the thread finish everything that was submitted, and end. Does not wait for it."""
        if os.getpid() != self._pid:  # the thread and the workers are those of the parent
            resolve(self.ended)
        else:
            self._advance(State.CLOSING)

    def kill(self) -> None:
        """Lets the thread end at once. Does not wait for it."""
        self._advance(State.KILLED)

    def _advance(self, state: State) -> None:
        with self._lock:
            self._state = max(self._state, state)
        self._wakeup.set()

    def statistics(self) -> Statistics:
        workers = restarts = 0
        if self.started.done() and not self.ended.done() and not self.started.exception():
            workers, restarts, _ = self.executor.counts()
        restarts += self._restarts_before
        return self._counts.statistics(workers, restarts, self._waiting_inputs, len(self._in_work))

    # Methods of the dispatcher's thread.

    def _run(self) -> None:
        reason = self._end_reason
        try:
            with self.executor.preparing():
                self._predictor = self._load()
                del self._load
                # Requests wait here, where they are gathered into batches and can be cancelled.
                self.executor.start(self._predictor, self._options, preserve_order=False)
            resolve(self.started)
            self._serve()
            if self._state is State.CLOSING:
                self.executor.close()
        except BaseException as error:  # also `SystemExit`, from wherever: callers are told
            reason = error
        try:
            self.executor.kill()
        finally:
            self._end(reason)

    def _serve(self) -> None:
        while self._state < State.KILLED:
            timeout = self._fill()
            if self._state is State.CLOSING and not (self._in_work or self._queue or self._inbox):
                return
            try:
                results = self.executor.collect(timeout, wake=[self._wakeup.fileno()])
            except WorkerDied as error:
                self._start_over(error)
                continue
            self._finished.extend((result, self._in_work.pop(result.number)) for result in results)
            # Workers get their next batches before the results are unpacked, which may take long.
            self._fill()
            while self._finished:
                self._finish(*self._finished[0])
                self._finished.popleft()

    def _start_over(self, error: WorkerDied) -> None:
        """Workers died one after the other: others try again, unless the model cannot work."""
        self._starts += 1
        if not self._counts.inputs or self._starts >= _MAX_STARTS:
            raise error
        self._restarts_before += self.executor.counts().restarts + 1
        self.executor.kill()
        for requests in reversed(list(self._in_work.values())):
            again = [r for r in requests if r.tries < _MAX_STARTS and not r.is_abandoned]
            for request in requests:
                if request not in again:
                    request.finish(error=error)
            self._queue.put_back(again)
            with self._lock:
                self._waiting_inputs += sum(len(request.values) for request in again)
        self._in_work.clear()
        self.executor.start(self._predictor, self._options, preserve_order=False)

    def _fill(self) -> Optional[float]:
        """Submits batches; returns the seconds after which there may be another in any case."""
        self._open_inbox()
        return None if fill(self.executor, self._next_batch) else self._queue.patience

    def _next_batch(self) -> Optional[Batch]:
        while True:
            has_idle = len(self._in_work) < self.executor.num_workers
            requests = self._queue.take(has_idle, in_hurry=self._state is not State.OPEN)
            wanted = [request for request in requests if request.start()]
            if wanted or not requests:
                return self._batch_of(wanted) if wanted else None

    def _batch_of(self, requests: List[Request]) -> Batch:
        batch = batch_of(self._next_number, requests)
        self._next_number += 1
        self._in_work[batch.number] = requests
        with self._lock:
            self._waiting_inputs -= len(batch.values)
        return batch

    def _open_inbox(self) -> None:
        self._wakeup.clear()  # a request that comes from here on wakes the thread again
        while self._inbox:
            self._queue.add(self._inbox.popleft())
        with self._lock:
            abandoned, self._abandoned = self._abandoned, []
        for request in abandoned:
            request.is_abandoned = True
            if request.batch_number in self._in_work:
                offsets = range(request.offset, request.offset + len(request.values))
                self.executor.abandon(request.batch_number, offsets)

    def _finish(self, result: BatchResult, requests: List[Request]) -> None:
        try:
            self._starts = 0
            self._counts.add_batch(result, requests)
            if result.printed:
                sys.stdout.write("".join(result.printed.values()))
            for request in requests:
                request.finish(result)
                self._counts.add_request(request)
        except BaseException as error:  # such as that of a stdout that takes no more
            for request in requests:
                request.finish(error=error)

    def _end(self, reason: BaseException) -> None:
        """Tells everybody who waits that there will be nothing more."""
        with self._lock:
            self._state, self._end_reason = State.ENDED, reason
        left = [request for requests in self._in_work.values() for request in requests]
        left += [request for _, requests in self._finished for request in requests]
        left += [request for request in [*self._queue.take_all(), *self._inbox] if request.start()]
        for request in left:
            request.finish(error=reason)
        resolve(self.started, error=reason)
        self._wakeup.close()
        _alive.discard(self)
        resolve(self.ended)


_alive: "weakref.WeakSet[Dispatcher]" = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    dispatchers = [dispatcher for dispatcher in _alive if dispatcher._pid == os.getpid()]
    for dispatcher in dispatchers:
        dispatcher.kill()
    for dispatcher in dispatchers:
        dispatcher._thread.join(_PATIENCE)
