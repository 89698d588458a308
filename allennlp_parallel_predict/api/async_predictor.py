"""`AsyncPredictor`: a predictor for asyncio, which never keeps the event loop waiting."""

import asyncio
import contextlib
from concurrent.futures import Future
from types import TracebackType
from typing import (
    Any,
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    List,
    Optional,
    Type,
    TypeVar,
    Union,
)

from allennlp_parallel_predict.api.async_iteration import iterate_in_thread, yield_to_loop
from allennlp_parallel_predict.api.base import BasePredictor, JsonDict
from allennlp_parallel_predict.api.request_queue import Request
from allennlp_parallel_predict.api.stream import Stream, only_output, treat_errors
from allennlp_parallel_predict.common.errors import check_at_least
from allennlp_parallel_predict.common.messages import Batch, BatchKind, OnError
from allennlp_parallel_predict.common.serialization import dumps

A = TypeVar("A", bound="AsyncPredictor")


class AsyncPredictor(BasePredictor):
    """
    A predictor for asyncio, whose work is done by worker processes. Single calls that come while
    the workers are busy are predicted together, in the order in which they came.

    Open it with `from_path`, `from_archive` or `from_params`, which return at once; `async with`,
    or `start`, waits until the model is loaded. It may be used from several event loops.

    # Examples

    ```python
    async with AsyncPredictor.from_path("model.tar.gz", num_workers=4) as predictor:
        outputs = await asyncio.gather(*map(predictor.predict_json, inputs))
    ```
    """

    _default_max_batch_size = 32

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
        checked = self._checked(on_error)
        check_at_least(1, batch_size=batch_size)
        values = [value async for value in yield_to_loop(map(dumps, inputs))]
        if not values:
            return []
        if batch_size is None:
            outputs = await self._result(Request(BatchKind.JSON_BATCH, values), timeout)
            return list(treat_errors(outputs, checked))
        # Two per worker at a time: later callers do not have to wait for a long list.
        batches = _batches(values, batch_size)
        stream = self._stream(batches, 2, checked, max_ahead=len(values), is_limited=True)
        return await asyncio.wait_for(_listed(stream), timeout)

    def predict_stream(
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
        checked, per_worker = self._checked(on_error), 2 * self._max_batch_size
        return self._stream(_singles(inputs), per_worker, checked, ordered=ordered, merge=True)

    async def _stream(
        self,
        batches: AsyncIterator[Batch],
        per_worker: int,
        on_error: OnError,
        max_ahead: int = 0,
        **how: bool,
    ) -> AsyncGenerator[JsonDict, None]:
        await self.start()
        loop = asyncio.get_running_loop()
        done: "asyncio.Queue[Optional[Future[List[Any]]]]" = asyncio.Queue()
        room = asyncio.Event()

        def on_done(future: "Future[List[Any]]") -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(done.put_nowait, future)

        most = per_worker * self._dispatcher.executor.num_workers
        stream = Stream(self._dispatcher, on_done, most, max(most, max_ahead), **how)
        feeder = asyncio.ensure_future(_feed(stream, batches, room))
        feeder.add_done_callback(lambda _: done.put_nowait(None))
        try:
            while not feeder.done() or stream.in_flight:
                future = await done.get()
                ready = [] if future is None else list(stream.finish(future))
                room.set()
                for outputs in ready:
                    for output in treat_errors(outputs, on_error):
                        yield output
            feeder.result()  # raises what the inputs raised
        finally:
            if not feeder.cancel() and not feeder.cancelled():
                feeder.exception()  # nobody will ask for it any more
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
        future = self._dispatcher.submit(request)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), timeout)
        finally:
            self._dispatcher.abandon(request)


async def _feed(stream: Stream, batches: AsyncIterator[Batch], room: asyncio.Event) -> None:
    """Submits batches as long as there are any, whenever there is room."""
    async for batch in batches:
        while not stream.has_room():
            room.clear()
            await room.wait()
        stream.submit(batch)


async def _singles(inputs: Any) -> AsyncIterator[Batch]:
    source = inputs if hasattr(inputs, "__aiter__") else iterate_in_thread(inputs)
    number = 0
    async for value in yield_to_loop(source):
        yield Batch(number, BatchKind.JSON, [dumps(value)], (number,), (number + 1,))
        number += 1


async def _batches(values: List[bytes], size: int) -> AsyncIterator[Batch]:
    for number, start in enumerate(range(0, len(values), size)):
        part = values[start : start + size]
        positions = range(start, start + len(part))
        yield Batch(number, BatchKind.JSON, part, positions, [n + 1 for n in positions])


async def _listed(items: AsyncGenerator[JsonDict, None]) -> List[JsonDict]:
    try:
        return [item async for item in items]
    finally:
        await items.aclose()
