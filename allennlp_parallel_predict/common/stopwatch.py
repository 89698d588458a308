"""
One process's time, split into stages.

A stage that is entered inside another one interrupts it, so each moment belongs to exactly one
stage, and the stages add up to the time that has passed, whatever calls whatever.
"""

import functools
import threading
import time
from typing import Any, Callable, ContextManager, Dict, List, NamedTuple, Optional, Tuple

from allennlp_parallel_predict.common.stages import OTHER

_GAP = 50e-6
"""Seconds. A timeline does not show that a stage was left for less than this, or `OTHER` at all."""


class Span(NamedTuple):
    """Something that a process was at, for a timeline. Times are `time.monotonic()`'s, which all
    processes of a machine share."""

    stage: str
    start: float
    end: float
    lines: str = ""
    """The input lines that it was about, if any."""


class Stopwatch:
    """
    # Parameters

    base : `str`
        The stage outside of all others.
    since : `float`, optional (default = `None`)
        The moment at which it starts; by default now.
    keeps_spans : `bool`, optional (default = `False`)
        Whether to keep what a timeline needs, and not only the sums.

    # Examples

    ```python
    watch = Stopwatch("waiting")
    with watch.stage("loading"):
        load = watch.timed("parsing", json.loads)
    ```
    """

    def __init__(self, base: str, since: Optional[float] = None, keeps_spans: bool = False) -> None:
        self._stack = [base]
        self.now = time.monotonic() if since is None else since
        """When a stage was last entered or left."""
        self._seconds: Dict[str, float] = {}
        self._spans: Optional[List[Span]] = [] if keeps_spans else None
        self.take_over()

    def take_over(self) -> None:
        """Makes this thread the one whose time is taken; stages of others are not seen."""
        self._thread = threading.get_ident()

    def restart(self, since: float, stage: str) -> None:
        """Forgets everything; what has been since then was `stage`."""
        self.take()
        base, self._stack = self._stack, [stage]
        self.now = since
        self._charge()
        self._stack = base

    def enter(self, stage: str) -> None:
        self._charge()
        self._stack.append(stage)

    def leave(self) -> None:
        self._charge()
        self._stack.pop()

    def _charge(self) -> None:
        now, stage = time.monotonic(), self._stack[-1]
        self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self.now
        if self._spans is not None:
            _extend(self._spans, stage, self.now, now)
        self.now = now

    def stage(self, stage: str) -> ContextManager[None]:
        """A part of the work; what is inside the same stage, as by itself, costs nothing more."""
        return _Stage(self, stage)

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, but the time of its calls is this stage's."""

        @functools.wraps(function)
        def in_stage(*args: Any, **kwargs: Any) -> Any:
            with _Stage(self, stage):
                return function(*args, **kwargs)

        return in_stage

    def is_seen(self, stage: str) -> bool:
        """Whether entering the stage here changes anything."""
        return self._stack[-1] != stage and threading.get_ident() == self._thread

    def take(self) -> Tuple[Dict[str, float], List[Span], float]:
        """
        # Returns

        seconds, spans, now : `Tuple[Dict[str, float], List[Span], float]`
            What has been taken since the last call.
        """
        self._charge()
        seconds, spans = self._seconds, self._spans
        self._seconds = {}
        if self._spans is not None:
            self._spans = []
        return seconds, spans or [], self.now


class _Stage:
    def __init__(self, watch: Stopwatch, stage: str) -> None:
        self._watch, self._stage = watch, stage

    def __enter__(self) -> None:
        self._is_seen = self._watch.is_seen(self._stage)
        if self._is_seen:
            self._watch.enter(self._stage)

    def __exit__(self, *error: Any) -> None:
        if self._is_seen:
            self._watch.leave()


def _extend(spans: List[Span], stage: str, start: float, end: float) -> None:
    # 32 calls of load_line in a row, with a microsecond in between, are one slice.
    if spans and spans[-1].stage == stage and start - spans[-1].end < _GAP:
        spans[-1] = spans[-1]._replace(end=end)
    elif stage != OTHER or end - start >= _GAP:
        spans.append(Span(stage, start, end))


def coarsen(spans: List[Span], resolution: float) -> List[Span]:
    """Fewer spans: of those shorter than `resolution` seconds, neighbours become one, which is
    named after the longest stage in it."""
    groups: List[List[Span]] = []
    for item in spans:
        if groups and item.end - groups[-1][0].start <= resolution:
            groups[-1].append(item)
        else:
            groups.append([item])
    return [_merge(group) for group in groups]


def _merge(group: List[Span]) -> Span:
    seconds: Dict[str, float] = {}
    for item in group:
        seconds[item.stage] = seconds.get(item.stage, 0.0) + item.end - item.start
    stage = max(seconds, key=lambda name: seconds[name])
    lines = next(item.lines for item in group if item.stage == stage)
    return Span(stage, group[0].start, group[-1].end, lines)
