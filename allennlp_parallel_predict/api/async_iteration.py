"""Reads inputs of any kind for asyncio, without keeping the event loop waiting."""

import asyncio
import queue
import threading
import time
from concurrent.futures import Future
from typing import (
    Any,
    AsyncIterable,
    AsyncIterator,
    Iterable,
    Iterator,
    List,
    Optional,
    TypeVar,
    Union,
)

_AT_ONCE = 0.002
"""Seconds after which a reading thread hands over what it has, and the loop others their turn."""

_READ_AT_ONCE = 32
"""Items after which a reading thread hands over what it has."""

T = TypeVar("T")


async def yield_to_loop(items: Union[Iterable[T], AsyncIterable[T]]) -> AsyncIterator[T]:
    """The same items, but others get their turn however many there are."""
    turn = time.monotonic()
    source = items if isinstance(items, AsyncIterable) else _as_async(items)
    async for item in source:
        yield item
        if time.monotonic() - turn > _AT_ONCE:
            await asyncio.sleep(0)
            turn = time.monotonic()


async def _as_async(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


def iterate_in_thread(items: Iterable[T]) -> AsyncIterator[T]:
    """The same items, of an iterable that may have to wait for them: in a thread, except lists."""
    return _as_async(items) if isinstance(items, (list, tuple)) else _read_in_thread(items)


async def _read_in_thread(items: Iterable[T]) -> AsyncIterator[T]:
    requests: "queue.SimpleQueue[Optional[Future[List[T]]]]" = queue.SimpleQueue()
    # Not an executor's thread, for which the interpreter's exit would wait.
    threading.Thread(target=_serve_reading, args=(iter(items), requests), daemon=True).start()
    try:
        while True:
            request: "Future[List[T]]" = Future()
            requests.put(request)
            some = await asyncio.wrap_future(request)
            for item in some:
                yield item
            if not some:
                return
    finally:
        requests.put(None)


def _serve_reading(items: Iterator[T], requests: Any) -> None:
    error: Optional[BaseException] = None
    for request in iter(requests.get, None):
        if not request.set_running_or_notify_cancel():
            continue
        taken: List[T] = []
        until = time.monotonic() + _AT_ONCE
        try:
            while error is None and len(taken) < _READ_AT_ONCE and time.monotonic() < until:
                taken.append(next(items))
        except StopIteration:
            pass
        except BaseException as raised:
            error = raised
        if taken or error is None:
            request.set_result(taken)
        else:
            request.set_exception(error)
