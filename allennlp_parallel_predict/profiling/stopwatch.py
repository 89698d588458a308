"""
One process's time, split into stages.

A stage that is entered inside another one interrupts it, so each moment belongs to exactly one
stage, and the stages add up to the time that has passed, whatever calls whatever.
"""

import functools
import threading
import time
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from allennlp_parallel_predict.profiling.stages import OTHER

_GAP = 50e-6
"""Seconds. A timeline does not show that a stage was left for less than this, or `OTHER` at all."""


class Slice(NamedTuple):
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
    keeps_slices : `bool`, optional (default = `False`)
        Whether to keep what a timeline needs, and not only the sums.

    # Examples

    ```python
    watch = Stopwatch("waiting")
    with watch.stage("loading"):
        load = watch.timed("parsing", json.loads)
    ```
    """

    def __init__(
        self, base: str, since: Optional[float] = None, keeps_slices: bool = False
    ) -> None:
        self._stack = [base]
        self.now = time.monotonic() if since is None else since
        """When a stage was last entered or left."""
        self._seconds: Dict[str, float] = {}
        self._slices: Optional[List[Slice]] = [] if keeps_slices else None
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
        if self._slices is not None:
            _extend(self._slices, stage, self.now, now)
        self.now = now

    @contextmanager
    def stage(self, stage: str) -> Iterator[None]:
        self.enter(stage)
        try:
            yield
        finally:
            self.leave()

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, but the time of its calls is this stage's. What is called inside the same
        stage, as by itself, costs nothing more."""

        @functools.wraps(function)
        def in_stage(*args: Any, **kwargs: Any) -> Any:
            if self._stack[-1] == stage or threading.get_ident() != self._thread:
                return function(*args, **kwargs)
            self.enter(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return in_stage

    def take(self) -> Tuple[Dict[str, float], List[Slice], float]:
        """
        # Returns

        seconds, slices, now : `Tuple[Dict[str, float], List[Slice], float]`
            What has been taken since the last call.
        """
        self._charge()
        seconds, slices = self._seconds, self._slices
        self._seconds = {}
        if self._slices is not None:
            self._slices = []
        return seconds, slices or [], self.now


def _extend(slices: List[Slice], stage: str, start: float, end: float) -> None:
    # 32 calls of load_line in a row, with a microsecond in between, are one slice.
    if slices and slices[-1].stage == stage and start - slices[-1].end < _GAP:
        slices[-1] = slices[-1]._replace(end=end)
    elif stage != OTHER or end - start >= _GAP:
        slices.append(Slice(stage, start, end))


def coarsen(slices: List[Slice], resolution: float) -> List[Slice]:
    """Fewer slices: of those shorter than `resolution` seconds, neighbours become one, which is
    named after the longest stage in it."""
    coarse: List[Slice] = []
    group: List[Slice] = []
    for item in slices:
        if group and item.end - group[0].start > resolution:
            coarse.append(_merge(group))
            group = []
        group.append(item)
    if group:
        coarse.append(_merge(group))
    return coarse


def _merge(group: List[Slice]) -> Slice:
    seconds: Dict[str, float] = {}
    for stage, start, end, _ in group:
        seconds[stage] = seconds.get(stage, 0.0) + end - start
    stage = max(seconds, key=lambda name: seconds[name])
    lines = next((item.lines for item in group if item.stage == stage), "")
    return Slice(stage, group[0].start, group[-1].end, lines)
