"""
What the parts of a run report to, so that a profile can say where the time went.

The code names its stages by itself; who listens is decided elsewhere, as in OpenTelemetry. By
default nobody does, and a stage costs half a microsecond.
"""

import functools
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Callable, ContextManager, Iterator, Optional, TypeVar, cast

from allennlp_parallel_predict.common.messages import Batch, BatchResult

F = TypeVar("F", bound=Callable[..., Any])

_NOTHING = nullcontext()


class Recorder:
    """Takes no note. Subclasses override what they want to know."""

    detail: Optional[str] = None
    """The `WorkerOptions.profile` of workers whose results it wants to read."""

    def stage(self, name: str) -> ContextManager[Any]:
        """Around a part of the work; see `common/stages.py`. Stages may be nested."""
        return _NOTHING

    def predicting(self) -> ContextManager[Any]:
        """Around all the prediction: the workers are there, before it and after it."""
        return _NOTHING

    def count_sent(self, size: int) -> None:
        """So many bytes go to a worker."""

    def count_received(self, size: int) -> None:
        """So many bytes came from a worker."""

    def add(self, batch: Batch, result: BatchResult) -> None:
        """A batch is finished."""


_current: ContextVar[Recorder] = ContextVar("recorder", default=Recorder())


def current() -> Recorder:
    """The recorder of this thread."""
    return _current.get()


def stage(name: str) -> ContextManager[Any]:
    """
    # Examples

    ```python
    with stage(WRITING):
        file.write(text)
    ```
    """
    return _current.get().stage(name)


def in_stage(name: str) -> Callable[[F], F]:
    """The same for all of a function, as a decorator."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def recorded(*args: Any, **kwargs: Any) -> Any:
            with _current.get().stage(name):
                return function(*args, **kwargs)

        return cast(F, recorded)

    return decorate


@contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Makes a recorder the one of this thread for a while."""
    token = _current.set(recorder)
    try:
        yield
    finally:
        _current.reset(token)
