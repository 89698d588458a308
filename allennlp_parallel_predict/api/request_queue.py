"""The inputs that wait for a worker, and which of them a worker gets next."""

import logging
import pickle
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Deque, List, Optional, Sequence

from allennlp_parallel_predict.common.errors import check_at_least
from allennlp_parallel_predict.common.messages import Batch, BatchKind, BatchResult

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueueSettings:
    """
    # Parameters

    max_batch_size : `int`, optional (default = `1`)
        The number of calls of `predict_json` that are predicted together if they wait at the same
        time. Together they are predicted by `predict_batch_json`, which may differ from
        `predict_json` in the last digits of floats, and so the workers need not be `exact` either.
        With 1, the results are those of a `Predictor` to the last bit.
    max_queue_delay : `float`, optional (default = `0.005`)
        The seconds that such a call waits for others to join it while a worker is idle.
    max_waiting : `int`, optional (default = `None`)
        The number of inputs that may wait for a worker; a call beyond it raises `QueueFull`, unless
        none waits. Streams, and the later batches of a call, wait until there is room.

    # Raises

    `SettingsError`
        If a value is out of range.
    """

    max_batch_size: int = 1
    max_queue_delay: float = 0.005
    max_waiting: Optional[int] = None

    def __post_init__(self) -> None:
        check_at_least(1, max_batch_size=self.max_batch_size, max_waiting=self.max_waiting)
        check_at_least(0, max_queue_delay=self.max_queue_delay)


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

    def finish(
        self, result: Optional[BatchResult] = None, error: Optional[BaseException] = None
    ) -> None:
        """Gives who waits their part of a batch's result, or an error."""
        resolve(self.future, None if result is None else self._outputs(result), error)

    def _outputs(self, result: BatchResult) -> List[Any]:
        failures = {failure.offset: failure.error for failure in result.failures}
        outputs: List[Any] = []
        for offset, number in enumerate(self.line_numbers, self.offset):
            failure = failures.get(offset) if result.fatal is None else result.fatal.error
            if failure is not None:
                outputs.append(failure.rebuild(f"In a worker, at input {number}:"))
            elif offset < len(result.outputs):
                # One by one, because nothing else can run in this process meanwhile.
                outputs.append(_loaded(result.outputs[offset]))
        return outputs


def _loaded(pickled: Any) -> Any:
    try:
        return pickle.loads(pickled)
    except BaseException as error:  # whatever an output's own code raises
        return error


class DynamicBatcher:
    """
    Gives requests to workers in the order in which they came, so that nobody waits for later ones.
    A worker gets requests that can be merged when it is idle: many can come together until then.
    """

    def __init__(self, settings: QueueSettings) -> None:
        self.patience: Optional[float] = None
        """The seconds for which `take` had rather waited for a fuller batch, if there are any."""
        self._settings = settings
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
        The requests for the next batch; none if they have to wait, for an idle worker (`has_idle`)
        or, unless `in_hurry`, for others to join them.
        """
        self.patience = None
        single, other = _first(self._to_merge), _first(self._others)
        most = self._settings.max_batch_size
        if single is not None:
            wait = single.since + self._settings.max_queue_delay - time.monotonic()
            if in_hurry or len(self._to_merge) >= most:
                wait = 0.0
            if wait <= 0 and (other is None or single.since <= other.since):
                size = min(most, len(self._to_merge)) if has_idle else 0
                return [self._to_merge.popleft() for _ in range(size)]
            if wait > 0 and has_idle:
                self.patience = wait
        if other is not None and (has_idle or other.ahead):
            return [self._others.popleft()]
        return []

    def take_all(self) -> List[Request]:
        requests = [*self._to_merge, *self._others]
        self._to_merge.clear()
        self._others.clear()
        return requests


def batch_of(number: int, requests: List[Request]) -> Batch:
    """The inputs of requests as one batch, in which each request knows its place from now on."""
    values: List[bytes] = []
    now = time.monotonic()
    for request in requests:
        request.batch_number, request.offset = number, len(values)
        request.submitted_at = now
        values += request.values
    lines = requests[0].line_numbers if len(requests) == 1 else range(1, len(values) + 1)
    return Batch(number, requests[0].kind, values, range(len(values)), lines)


def result_only() -> "Future[None]":
    """A future that nobody who waits for it can cancel."""
    future: "Future[None]" = Future()
    future.set_running_or_notify_cancel()
    return future


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
