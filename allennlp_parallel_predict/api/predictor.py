"""`ParallelPredictor`: AllenNLP's `Predictor`, with worker processes behind it."""

from concurrent.futures import Future
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generator, Iterable, List, Optional, Type, TypeVar

from allennlp.data import Instance
from overrides import overrides

from allennlp_parallel_predict.api.base import BasePredictor, JsonDict
from allennlp_parallel_predict.api.request_queue import Request
from allennlp_parallel_predict.api.stream import (
    Stream,
    only_output,
    pickled_batches,
    treat_errors,
    until_error,
)
from allennlp_parallel_predict.common.messages import Batch, BatchKind, OnError
from allennlp_parallel_predict.common.serialization import dumps
from allennlp_parallel_predict.data.batching import InOrderBatching
from allennlp_parallel_predict.executors.base import fill

_IN_FLIGHT = 3
"""Batches per worker that a stream has submitted: one is computed, one queued, one on its way."""
_MAX_AHEAD = 16
"""Batches per worker between the oldest unfinished one and the newest."""

P = TypeVar("P", bound="ParallelPredictor")


class ParallelPredictor(BasePredictor):
    """
    A predictor whose work is done by worker processes. Its results are the dictionaries that a
    `Predictor` gives for the same call. It may be used from several threads at once.

    Open it with `from_path`, `from_archive` or `from_params`. Close it by `with`, by `close`, or by
    letting go of it: no worker process outlives it or the interpreter.

    # Parameters

    load, settings, queue :
        As for `BasePredictor`. The `batching` of the settings is the default of `predict_stream`,
        and `on_error` that of all methods for several inputs.

    # Raises

    `Exception`
        The one that loading the archive raises.

    # Examples

    ```python
    with ParallelPredictor.from_path("model.tar.gz", num_workers=4) as predictor:
        for output in predictor.predict_stream(inputs, batch_size=32):
            print(output)
    ```
    """

    @overrides
    def _opened(self) -> None:
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
        except BaseException:  # Ctrl-C
            self._dispatcher.abandon(request)
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
        workers = self._dispatcher.executor.num_workers
        done: "SimpleQueue[Future[List[Any]]]" = SimpleQueue()
        most, most_ahead = _IN_FLIGHT * workers, _MAX_AHEAD * workers
        stream = Stream(self._dispatcher, done.put, most, most_ahead, ordered=ordered, ahead=True)
        errors: List[Exception] = []
        batches = until_error(pickled_batches(inputs, batching, kind), errors)

        def next_batch() -> Optional[Batch]:
            # Reading the next inputs may take long: what is finished does not wait for that.
            return next(batches, None) if done.empty() else None

        try:
            while True:
                fill(stream, next_batch)
                if not stream.in_flight:
                    break
                for outputs in stream.finish(done.get()):
                    yield from treat_errors(outputs, on_error)
                    # One for one, so that the workers have work however slow the caller is.
                    fill(stream, lambda: next(batches, None), at_most=1)
        finally:
            stream.cancel()
        if errors:
            raise errors[0]
