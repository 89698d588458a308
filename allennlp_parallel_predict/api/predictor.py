"""`ParallelPredictor`: AllenNLP's `Predictor`, with worker processes behind it."""

import weakref
from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import (
    Any,
    Callable,
    Dict,
    Generator,
    Iterable,
    Iterator,
    List,
    Optional,
    Tuple,
    Type,
    TypeVar,
)

from allennlp.data import Instance
from allennlp.predictors import Predictor

from allennlp_parallel_predict.api.base import BasePredictor
from allennlp_parallel_predict.api.dispatcher import Dispatcher
from allennlp_parallel_predict.api.request_queue import Request
from allennlp_parallel_predict.common.errors import PredictionError
from allennlp_parallel_predict.common.messages import Batch, BatchKind, BatchResult, OnError
from allennlp_parallel_predict.common.serialization import dumps
from allennlp_parallel_predict.data.batching import Batching, InOrderBatching
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.data.reorder_buffer import CompletedBatch, ReorderBuffer
from allennlp_parallel_predict.executors.inflight_window import InflightWindow
from allennlp_parallel_predict.settings import Settings

_IN_FLIGHT = 3
"""Batches a worker that a stream has in work: computed, in a worker's hand, and ready for it."""
_RUN_AHEAD = 16
"""Batches a worker that may be finished before a slow one that comes before them."""

JsonDict = Dict[str, Any]
P = TypeVar("P", bound="ParallelPredictor")


class ParallelPredictor(BasePredictor):
    """
    A predictor whose work is done by worker processes. Its results are the dictionaries that a
    `Predictor` gives for the same call. It may be used from several threads at once.

    Open it with `from_path`, `from_archive` or `from_params`. Close it by `with`, by `close`, or by
    letting go of it: no worker process outlives it or the interpreter.

    # Parameters

    load : `Callable[[], Predictor]`
        Loads the predictor; called in another thread.
    settings : `Settings`
        The settings of the pool. `batching` is what `predict_stream` does by default, and
        `on_error` what is done about inputs that fail.

    # Examples

    ```python
    with ParallelPredictor.from_path("model.tar.gz", num_workers=4) as predictor:
        for output in predictor.predict_stream(inputs, batch_size=32):
            print(output)
    ```
    """

    def __init__(self, load: Callable[[], Predictor], settings: Settings) -> None:
        self._batching = settings.batching
        self._on_error = settings.on_error
        self._dispatcher = Dispatcher(settings.executor, load, settings.exact)
        weakref.finalize(self, self._dispatcher.kill).atexit = False  # the dispatcher sees to that
        try:
            self._dispatcher.started.result()
        except BaseException:
            self._dispatcher.kill()
            raise

    def predict_json(self, inputs: JsonDict) -> JsonDict:
        """
        # Raises

        `Exception`
            What the predictor raises, of the same type, with the worker's traceback as its cause.
        `WorkerDied`, `WorkerTimeout`
            If no worker survives the input, or comes to an end within `batch_timeout`.
        `PredictorClosed`
            If the predictor is closed.
        """
        return only_output(self._result(Request(BatchKind.JSON, [dumps(inputs)], merge=True)))

    def predict_instance(self, instance: Instance) -> JsonDict:
        """Raises what `predict_json` raises."""
        return only_output(self._result(Request(BatchKind.INSTANCE, [dumps(instance)])))

    def predict_batch_json(
        self,
        inputs: Iterable[JsonDict],
        batch_size: Optional[int] = None,
        on_error: Optional[str] = None,
    ) -> List[JsonDict]:
        """
        # Parameters

        inputs : `Iterable[JsonDict]`
            The inputs.
        batch_size : `int`, optional (default = `None`)
            By default all inputs are one batch, exactly as for a `Predictor`, so one worker
            predicts them. With a batch size they are divided, and all workers do.
        on_error : `str`, optional (default = `None`)
            What becomes of an input that fails: `"raise"` raises its exception, `"skip"` leaves it
            out, `"placeholder"` gives the exception in place of the output. By default, what the
            settings say.

        # Raises

        `Exception`
            What `predict_json` raises.
        """
        return self._predict_batch(
            inputs, batch_size, on_error, BatchKind.JSON, BatchKind.JSON_BATCH
        )

    def predict_batch_instance(
        self,
        instances: Iterable[Instance],
        batch_size: Optional[int] = None,
        on_error: Optional[str] = None,
    ) -> List[JsonDict]:
        """`predict_batch_json` for instances."""
        return self._predict_batch(
            instances, batch_size, on_error, BatchKind.INSTANCE, BatchKind.INSTANCE_BATCH
        )

    def predict_stream(
        self,
        inputs: Iterable[JsonDict],
        batch_size: Optional[int] = None,
        ordered: bool = True,
        on_error: Optional[str] = None,
    ) -> Generator[JsonDict, None, None]:
        """
        Predicts as many inputs as there are, lazily: it takes a few more inputs whenever outputs
        are taken from it, so that neither wait in memory. An endless generator is fine.

        # Parameters

        inputs : `Iterable[JsonDict]`
            The inputs. They are read in the thread that takes the outputs.
        batch_size : `int`, optional (default = `None`)
            The inputs that are predicted together; by default what the settings say, which is 1
            unless set. One alone is predicted by `predict_json`.
        ordered : `bool`, optional (default = `True`)
            Whether outputs come in the order of the inputs, or as they are finished.
        on_error : `str`, optional (default = `None`)
            As for `predict_batch_json`; an exception that is raised ends the stream.
        """
        return self._stream(inputs, BatchKind.JSON, batch_size, ordered, self._checked(on_error))

    def close(self) -> None:
        """Finishes what other threads wait for, and ends the workers."""
        self._dispatcher.close()
        self._dispatcher.ended.result()

    def __enter__(self: P) -> P:
        return self

    def __exit__(
        self,
        error_type: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if error is not None:
            self._dispatcher.kill()
        self.close()

    def _result(self, request: Request) -> List[Any]:
        future = self._dispatcher.submit(request)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C
            raise

    def _predict_batch(
        self,
        inputs: Iterable[Any],
        batch_size: Optional[int],
        on_error: Optional[str],
        kind: BatchKind,
        whole_kind: BatchKind,
    ) -> List[JsonDict]:
        on_error = self._checked(on_error)
        if batch_size is not None:
            return list(self._stream(inputs, kind, batch_size, True, on_error))
        values = [dumps(value) for value in inputs]
        outputs = self._result(Request(whole_kind, values)) if values else []
        return list(treat_errors(outputs, on_error))

    def _stream(
        self,
        inputs: Iterable[Any],
        kind: BatchKind,
        batch_size: Optional[int],
        ordered: bool,
        on_error: OnError,
    ) -> Generator[JsonDict, None, None]:
        batching = self._batching if batch_size is None else InOrderBatching(batch_size)
        stream = _Stream(self._dispatcher, _pickled_batches(inputs, batching, kind))
        order = ReorderBuffer()
        try:
            for batch, outputs in stream:
                run = CompletedBatch(batch, BatchResult(batch.number, outputs))
                for ready in order.add(run) if ordered else (run,):
                    yield from treat_errors(ready.result.outputs, on_error)
                    # One for one, so that the workers have work however slow the caller is.
                    stream.submit_one()
        finally:
            stream.cancel()


def _pickled_batches(inputs: Iterable[Any], batching: Batching, kind: BatchKind) -> Iterator[Batch]:
    """Batches of inputs as they were when they were read: the caller may use an object again."""
    pickled: Dict[int, bytes] = {}

    def numbered() -> Iterator[Input]:
        for position, value in enumerate(inputs):
            pickled[position] = dumps(value)
            yield Input(position, position + 1, value)

    for batch in batching.batches(numbered(), kind):
        if batch is not None:
            yield batch._replace(values=[pickled.pop(position) for position in batch.positions])


class _Stream:
    """
    Keeps some batches in work, and gives them with their outputs as they are finished.

    # Parameters

    dispatcher : `Dispatcher`
        What gets the batches.
    batches : `Iterator[Batch]`
        The batches, numbered.
    """

    def __init__(self, dispatcher: Dispatcher, batches: Iterator[Batch]) -> None:
        self._dispatcher = dispatcher
        self._batches = batches
        self._is_exhausted = False
        self._source_error: Optional[Exception] = None
        num_workers = dispatcher.executor.num_workers
        self._max_in_flight = _IN_FLIGHT * num_workers
        self._window = InflightWindow(_RUN_AHEAD * num_workers, 1)
        self._in_flight: Dict["Future[List[Any]]", Batch] = {}
        self._done: "SimpleQueue[Future[List[Any]]]" = SimpleQueue()

    def __iter__(self) -> Iterator[Tuple[Batch, List[Any]]]:
        while True:
            # What is finished is not kept back while the next inputs are read, which may take long.
            while self._done.empty() and self.submit_one():
                pass
            if not self._in_flight:
                break
            future = self._done.get()
            batch = self._in_flight.pop(future)
            self._window.leave(batch.number, 0)
            yield batch, future.result()
        if self._source_error is not None:
            raise self._source_error

    def submit_one(self) -> bool:
        """Submits one more batch, if there is one and there may be."""
        has_room = len(self._in_flight) < self._max_in_flight and self._window.is_open()
        if self._is_exhausted or not has_room:
            return False
        try:
            batch = next(self._batches, None)
        except Exception as error:
            # What was read before is predicted and given away first.
            batch, self._source_error = None, error
        if batch is None:
            self._is_exhausted = True
            return False
        self._window.enter(batch)
        request = Request(batch.kind, batch.values, ahead=True, line_numbers=batch.line_numbers)
        future = self._dispatcher.submit(request)
        self._in_flight[future] = batch
        future.add_done_callback(self._done.put)
        return True

    def cancel(self) -> None:
        for future in self._in_flight:
            future.cancel()
        self._in_flight.clear()


def only_output(outputs: List[Any]) -> JsonDict:
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
    return outputs[0]


def treat_errors(outputs: Iterable[Any], on_error: OnError) -> Iterator[Any]:
    """Raises the exceptions among the outputs, leaves them out, or leaves them in."""
    for output in outputs:
        if not isinstance(output, BaseException):
            yield output
        elif on_error == OnError.RAISE:
            raise output
        elif on_error != OnError.SKIP:
            yield output
