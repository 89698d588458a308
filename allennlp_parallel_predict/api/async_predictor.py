"""`AsyncPredictor`: a predictor for asyncio, which never keeps the event loop waiting."""

import asyncio
import itertools
import weakref
from types import TracebackType
from typing import (
    Any,
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    List,
    Optional,
    Set,
    Type,
    TypeVar,
    Union,
)

from allennlp.predictors import Predictor

from allennlp_parallel_predict.api.async_iteration import iterate_in_thread, yield_to_loop
from allennlp_parallel_predict.api.base import BasePredictor
from allennlp_parallel_predict.api.dispatcher import Dispatcher
from allennlp_parallel_predict.api.predictor import JsonDict, only_output, treat_errors
from allennlp_parallel_predict.api.request_queue import Request
from allennlp_parallel_predict.common.errors import QueueFull, SettingsError
from allennlp_parallel_predict.common.messages import BatchKind
from allennlp_parallel_predict.common.serialization import dumps
from allennlp_parallel_predict.settings import Settings

A = TypeVar("A", bound="AsyncPredictor")


class AsyncPredictor(BasePredictor):
    """
    A predictor for asyncio, whose work is done by worker processes. Single calls that come while
    the workers are busy are predicted together, in the order in which they came.

    Open it with `from_path`, `from_archive` or `from_params`, which return at once; `async with`,
    or `start`, waits until the model is loaded. It may be used from several event loops.

    # Parameters

    load : `Callable[[], Predictor]`
        Loads the predictor; called in another thread.
    settings : `Settings`
        The settings of the pool.
    max_batch_size : `int`, optional (default = `32`)
        The number of single calls that are predicted together. Together they are predicted by
        `predict_batch_json`, which may differ from `predict_json` in the last digits of floats (and
        so the workers need not be `exact` either); with 1, every call is predicted alone, and every
        batch as by a `Predictor` to the last bit.
    max_queue_delay : `float`, optional (default = `0.005`)
        The seconds that a call waits for others to join it while there is an idle worker.
    max_waiting : `int`, optional (default = `None`)
        The number of inputs that may wait for a worker; a call beyond it raises `QueueFull`, unless
        none waits. Streams, and the later batches of a call, wait until there is room.

    # Examples

    ```python
    async with AsyncPredictor.from_path("model.tar.gz", num_workers=4) as predictor:
        outputs = await asyncio.gather(*map(predictor.predict_json, inputs))
    ```
    """

    def __init__(
        self,
        load: Callable[[], Predictor],
        settings: Settings,
        *,
        max_batch_size: int = 32,
        max_queue_delay: float = 0.005,
        max_waiting: Optional[int] = None,
    ) -> None:
        for name, value in (("max_batch_size", max_batch_size), ("max_waiting", max_waiting)):
            if value is not None and value < 1:
                raise SettingsError(f"{name} must be at least 1, but it is {value}")
        if max_queue_delay < 0:
            raise SettingsError(f"max_queue_delay must be at least 0, but it is {max_queue_delay}")
        self._on_error = settings.on_error
        self._max_batch_size = max_batch_size
        self._dispatcher = Dispatcher(
            settings.executor, load, settings.exact, max_batch_size, max_queue_delay, max_waiting
        )
        weakref.finalize(self, self._dispatcher.kill).atexit = False  # the dispatcher sees to that

    async def start(self) -> None:
        """
        Waits until the model is loaded and the workers are started.

        # Raises

        `Exception`
            What loading the archive raises.
        """
        await asyncio.wrap_future(self._dispatcher.started)

    async def predict_json(self, inputs: JsonDict, timeout: Optional[float] = None) -> JsonDict:
        """
        # Parameters

        inputs : `JsonDict`
            The input.
        timeout : `float`, optional (default = `None`)
            The seconds after which the call is given up. A call that is cancelled costs nothing if
            no worker has it yet; otherwise its output is thrown away.

        # Raises

        `asyncio.TimeoutError`
            If time is up.
        `QueueFull`
            If `max_waiting` inputs wait already.
        `Exception`
            What `ParallelPredictor.predict_json` raises.
        """
        request = Request(BatchKind.JSON, [dumps(inputs)], merge=True)
        return only_output(await self._result(request, timeout))

    async def predict_batch_json(
        self,
        inputs: Iterable[JsonDict],
        batch_size: Optional[int] = None,
        on_error: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> List[JsonDict]:
        """
        # Parameters

        inputs : `Iterable[JsonDict]`
            The inputs.
        batch_size, on_error :
            As for `ParallelPredictor.predict_batch_json`: without a batch size, one worker predicts
            all inputs as one batch.
        timeout :
            As for `predict_json`.
        """
        on_error = self._checked(on_error)
        values = [value async for value in yield_to_loop(map(dumps, inputs))]
        if batch_size is not None and batch_size < 1:
            raise SettingsError(f"batch_size must be at least 1, but it is {batch_size}")
        kind = BatchKind.JSON_BATCH if batch_size is None else BatchKind.JSON
        size = batch_size or max(1, len(values))
        # Not all at once: those who come later shall not have to wait for a long list.
        room = asyncio.Semaphore(2 * self._dispatcher.executor.num_workers)

        async def predict(start: int) -> List[Any]:
            part = values[start : start + size]
            numbers = range(start + 1, start + 1 + len(part))
            async with room:
                request = Request(kind, part, is_limited=start == 0, line_numbers=numbers)
                try:
                    return await self._result(request)
                except QueueFull:
                    for task in tasks[1:]:  # the call is refused, and so are all of its parts
                        task.cancel()
                    raise

        tasks = [asyncio.ensure_future(predict(i)) for i in range(0, len(values), size)]
        try:
            parts = await asyncio.wait_for(asyncio.gather(*tasks), timeout)
        finally:
            for task in tasks:
                task.cancel()
        return list(treat_errors(itertools.chain.from_iterable(parts), on_error))

    async def predict_stream(
        self,
        inputs: Union[Iterable[JsonDict], AsyncIterable[JsonDict]],
        ordered: bool = True,
        on_error: Optional[str] = None,
    ) -> AsyncGenerator[JsonDict, None]:
        """
        Predicts as many inputs as there are, lazily, in batches of up to `max_batch_size`.

        # Parameters

        inputs : `Union[Iterable[JsonDict], AsyncIterable[JsonDict]]`
            The inputs. A plain iterable that is no list or tuple is read in a thread of its own, as
            it may wait for something; that thread ends with the process if it waits for ever.
        ordered, on_error :
            As for `ParallelPredictor.predict_stream`.
        """
        on_error = self._checked(on_error)
        await self.start()
        window = 2 * self._max_batch_size * self._dispatcher.executor.num_workers
        stream = _Stream(self._dispatcher, inputs, window, ordered)
        try:
            async for outputs in stream:
                for output in treat_errors(outputs, on_error):
                    yield output
        finally:
            stream.cancel()

    async def close(self) -> None:
        """Finishes everything that others wait for, and ends the workers."""
        self._dispatcher.close()
        await asyncio.wrap_future(self._dispatcher.ended)

    async def __aenter__(self: A) -> A:
        try:
            await self.start()
        except BaseException:
            self._dispatcher.kill()
            raise
        return self

    async def __aexit__(
        self,
        error_type: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if error is not None:
            self._dispatcher.kill()
        await self.close()

    async def _result(self, request: Request, timeout: Optional[float] = None) -> List[Any]:
        # Cancelling what waits for the future cancels the future, if no worker has the request yet.
        return await asyncio.wait_for(
            asyncio.wrap_future(self._dispatcher.submit(request)), timeout
        )


class _Stream:
    """
    Feeds inputs to the dispatcher from a task, as long as there is room, and gives their outputs.

    # Parameters

    dispatcher : `Dispatcher`
        What gets the inputs.
    inputs : `Union[Iterable[JsonDict], AsyncIterable[JsonDict]]`
        The inputs.
    window : `int`
        The number of inputs whose outputs have not been taken.
    ordered : `bool`
        Whether outputs come in the order of the inputs.
    """

    def __init__(self, dispatcher: Dispatcher, inputs: Any, window: int, ordered: bool) -> None:
        self._dispatcher = dispatcher
        self._inputs = inputs if hasattr(inputs, "__aiter__") else iterate_in_thread(inputs)
        self._ordered = ordered
        self._room = asyncio.Semaphore(window)
        # In the order in which they are to be given; `None` comes after the last was submitted.
        self._futures: "asyncio.Queue[Optional[asyncio.Future[List[Any]]]]" = asyncio.Queue()
        self._outstanding: "Set[asyncio.Future[List[Any]]]" = set()
        self._feeder = asyncio.ensure_future(self._feed())

    async def _feed(self) -> None:
        try:
            async for value in yield_to_loop(self._inputs):
                await self._room.acquire()
                request = Request(BatchKind.JSON, [dumps(value)], merge=True, is_limited=False)
                future = asyncio.wrap_future(self._dispatcher.submit(request))
                self._outstanding.add(future)
                if self._ordered:
                    self._futures.put_nowait(future)
                else:
                    future.add_done_callback(self._futures.put_nowait)
        finally:
            self._futures.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[List[Any]]:
        is_fed = False
        while not is_fed or self._outstanding:
            future = await self._futures.get()
            if future is None:
                is_fed = True
                continue
            outputs = await future
            self._outstanding.discard(future)
            self._room.release()
            yield outputs
        await self._feeder  # raises what the inputs raised

    def cancel(self) -> None:
        if not self._feeder.cancel() and not self._feeder.cancelled():
            self._feeder.exception()  # nobody will ask for it any more
        for future in self._outstanding:
            future.cancel()
