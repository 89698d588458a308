"""The inputs that wait for a worker, and which of them a worker gets next."""

import logging
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, Deque, List, Optional, Sequence

from allennlp_parallel_predict.common.messages import BatchKind

logger = logging.getLogger(__name__)


class Request:
    """
    Inputs that somebody waits for.

    # Parameters

    kind : `BatchKind`
        The kind of batch.
    values : `List[bytes]`
        The pickled inputs.
    merge : `bool`, optional (default = `False`)
        Whether a worker may get these inputs in one batch with those of other requests.
    ahead : `bool`, optional (default = `False`)
        Whether a worker may get it while it still computes another batch. That spares the worker a
        wait, but this request waits long if the other batch takes long.
    is_limited : `bool`, optional (default = `True`)
        Whether it is refused if too many inputs wait. The parts of what has been let in are not.
    line_numbers : `Sequence[int]`, optional (default = `None`)
        What the inputs are called in messages; by default they are counted from 1.
    """

    def __init__(
        self,
        kind: BatchKind,
        values: List[bytes],
        merge: bool = False,
        ahead: bool = False,
        is_limited: bool = True,
        line_numbers: Optional[Sequence[int]] = None,
    ) -> None:
        self.kind = kind
        self.values = values
        self.merge = merge
        self.ahead = ahead
        self.is_limited = is_limited
        self.line_numbers = line_numbers or range(1, len(values) + 1)
        self.batch_number: Optional[int] = None
        """The batch that has it, if a worker was given one."""
        self.offset = 0
        """The place of its first input in that batch."""
        self.submitted_at = 0.0
        self.tries = 0
        self.is_abandoned = False
        self.since = time.monotonic()
        self.future: "Future[List[Any]]" = Future()
        """The outputs in order, with an exception in the place of each that failed."""

    def start(self) -> bool:
        """Whether it is wanted; from here on its future cannot be cancelled."""
        self.tries += 1
        return self.tries > 1 or self.future.set_running_or_notify_cancel()

    def finish(self, outputs: Any = None, error: Optional[BaseException] = None) -> None:
        resolve(self.future, outputs, error)


class DynamicBatcher:
    """
    Gives requests to workers in the order in which they came, so that nobody waits for later ones.
    A worker gets requests that can be merged when it is idle: many can come together until then.

    # Parameters

    max_batch_size : `int`
        The number of requests up to which requests of one input are merged.
    max_queue_delay : `float`
        The seconds that a worker stays idle to see whether a batch becomes full.
    """

    def __init__(self, max_batch_size: int, max_queue_delay: float) -> None:
        self.patience: Optional[float] = None
        """The seconds for which `take` had rather waited for a fuller batch, if there are any."""
        self._max_batch_size = max_batch_size
        self._max_queue_delay = max_queue_delay
        self._to_merge: Deque[Request] = deque()
        self._others: Deque[Request] = deque()

    def __len__(self) -> int:
        return len(self._to_merge) + len(self._others)

    def add(self, request: Request) -> None:
        (self._to_merge if request.merge else self._others).append(request)

    def put_back(self, requests: List[Request]) -> None:
        """Takes requests again that a worker had: they are first."""
        for request in reversed(requests):
            (self._to_merge if request.merge else self._others).appendleft(request)

    def take(self, has_idle: bool, in_hurry: bool = False) -> List[Request]:
        """
        # Parameters

        has_idle : `bool`
            Whether there is an idle worker.
        in_hurry : `bool`, optional (default = `False`)
            Whether there is no point in waiting for more requests.

        # Returns

        `List[Request]`
            The requests for the next batch; none if they have to wait.
        """
        self.patience = None
        single, other = _first(self._to_merge), _first(self._others)
        if single is not None:
            wait = single.since + self._max_queue_delay - time.monotonic()
            if in_hurry or len(self._to_merge) >= self._max_batch_size:
                wait = 0.0
            if wait <= 0 and (other is None or single.since <= other.since):
                return self._take_group() if has_idle else []
            if wait > 0 and has_idle:
                self.patience = wait
        if other is not None and (has_idle or other.ahead):
            return [self._others.popleft()]
        return []

    def _take_group(self) -> List[Request]:
        size = min(self._max_batch_size, len(self._to_merge))
        return [self._to_merge.popleft() for _ in range(size)]

    def take_all(self) -> List[Request]:
        requests = [*self._to_merge, *self._others]
        self._to_merge.clear()
        self._others.clear()
        return requests


def resolve(
    future: "Future[Any]", result: Any = None, error: Optional[BaseException] = None
) -> None:
    """Sets the result or the error. A failure of the future's callbacks is only logged."""
    try:
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
    except BaseException:
        logger.exception("a callback of a result has failed")


def _first(requests: Deque[Request]) -> Optional[Request]:
    """The first request that has not been cancelled."""
    while requests and requests[0].future.cancelled():
        requests.popleft()
    return requests[0] if requests else None
