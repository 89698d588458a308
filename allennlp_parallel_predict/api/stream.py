"""The part of the interfaces that is the same for threads and for event loops."""

import sys
from concurrent.futures import Future
from typing import Any, Callable, Dict, Iterable, Iterator, List, Tuple, TypeVar

from allennlp_parallel_predict.api.dispatcher import Dispatcher
from allennlp_parallel_predict.api.request_queue import Request
from allennlp_parallel_predict.common.errors import PredictionError
from allennlp_parallel_predict.common.messages import Batch, BatchKind, BatchResult, OnError
from allennlp_parallel_predict.common.serialization import dumps
from allennlp_parallel_predict.data.batching import Batching
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.data.reorder_buffer import CompletedBatch, ReorderBuffer
from allennlp_parallel_predict.executors.inflight_window import InflightWindow

T = TypeVar("T")


class Stream:
    """
    The batches of a stream that are under way: how many there may be, and whose outputs are next.
    The caller reads inputs and waits; one thread does both.

    # Parameters

    dispatcher : `Dispatcher`
        Predicts the batches.
    on_done : `Callable[[Future], None]`
        Called in another thread when a batch is finished; then `finish` may be called.
    max_in_flight : `int`
        The number of batches that are submitted and not finished.
    max_ahead : `int`
        The number of batches between the oldest unfinished one and the newest.
    ordered : `bool`, optional (default = `True`)
        Whether outputs come in the order of the inputs.
    ahead, merge : `bool`, optional (default = `False`)
        As for `Request`.
    is_limited : `bool`, optional (default = `False`)
        Whether the first is refused if too many inputs wait.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        on_done: "Callable[[Future[List[Any]]], None]",
        max_in_flight: int,
        max_ahead: int,
        *,
        ordered: bool = True,
        ahead: bool = False,
        merge: bool = False,
        is_limited: bool = False,
    ) -> None:
        self._dispatcher = dispatcher
        self._on_done = on_done
        self._max_in_flight = max_in_flight
        self._window = InflightWindow(max_ahead if ordered else sys.maxsize, 1)
        self._order = ReorderBuffer() if ordered else None
        self._ahead = ahead
        self._merge = merge
        self._is_limited = is_limited
        self.in_flight: "Dict[Future[List[Any]], Tuple[Batch, Request]]" = {}

    def has_room(self) -> bool:
        return len(self.in_flight) < self._max_in_flight and self._window.is_open()

    def submit(self, batch: Batch) -> None:
        request = Request(
            batch.kind,
            batch.values,
            merge=self._merge,
            ahead=self._ahead,
            is_limited=self._is_limited and batch.number == 0,
            line_numbers=batch.line_numbers,
        )
        future = self._dispatcher.submit(request)
        self._window.enter(batch)
        self.in_flight[future] = batch, request
        future.add_done_callback(self._on_done)

    def finish(self, future: "Future[List[Any]]") -> Iterator[List[Any]]:
        """Yields the outputs of the batches that are next, now that this one is finished."""
        batch, _ = self.in_flight.pop(future)
        self._window.leave(batch.number, 0)
        if self._order is None:
            yield future.result()
            return
        result = BatchResult(batch.number, future.result())
        for ready in self._order.add(CompletedBatch(batch, result)):
            yield ready.result.outputs

    def cancel(self) -> None:
        for _, request in self.in_flight.values():
            self._dispatcher.abandon(request)
        self.in_flight.clear()


def pickled_batches(inputs: Iterable[Any], batching: Batching, kind: BatchKind) -> Iterator[Batch]:
    """Batches of inputs as they were when they were read: the caller may use an object again."""
    pickled: Dict[int, bytes] = {}

    def numbered() -> Iterator[Input]:
        for position, value in enumerate(inputs):
            pickled[position] = dumps(value)
            yield Input(position, position + 1, value)

    for batch in batching.batches(numbered(), kind):
        if batch is not None:
            yield batch._replace(values=[pickled.pop(position) for position in batch.positions])


def until_error(items: Iterable[T], errors: List[Exception]) -> Iterator[T]:
    """The same items; an exception ends them, and is noted, as those before it come first."""
    try:
        yield from items
    except Exception as error:
        errors.append(error)


def only_output(outputs: List[Any]) -> Dict[str, Any]:
    """
    The output for a single input.

    # Raises

    `BaseException`
        The exception that is in its place.
    """
    if not outputs:
        raise PredictionError("the predictor gave no output for this input")
    if isinstance(outputs[0], BaseException):
        raise outputs[0]
    output: Dict[str, Any] = outputs[0]
    return output


def treat_errors(outputs: Iterable[Any], on_error: OnError) -> Iterator[Any]:
    """Raises the exceptions among the outputs, leaves them out, or leaves them in."""
    for output in outputs:
        if not isinstance(output, BaseException):
            yield output
        elif on_error == OnError.RAISE:
            raise output
        elif on_error != OnError.SKIP:
            yield output
