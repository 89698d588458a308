"""What the parent notes of a run: its own time, and what the workers send with their results."""

import heapq
import os
import time
from array import array
from contextlib import contextmanager
from typing import ContextManager, Dict, Iterator, List, NamedTuple, Optional, Tuple

from allennlp_parallel_predict.common.messages import SPANS, SUMS, Batch, BatchProfile, BatchResult
from allennlp_parallel_predict.common.recorder import Recorder
from allennlp_parallel_predict.common.stages import IMPORTS, OTHER, STARTING, WAITING
from allennlp_parallel_predict.common.stopwatch import Span, Stopwatch, coarsen
from allennlp_parallel_predict.profiling.memory import memory_of, process_start, swapped

_SLOWEST = 10
_MAX_SPANS = 20_000
"""Of one process. A timeline of more is made coarser, so that any run has one."""
_RESOLUTION = 1e-3
"""Seconds under which spans are merged at first."""

_is_first_run = True


class SlowBatch(NamedTuple):
    """A batch that took long, for the report."""

    seconds: float
    number: int
    worker: int
    """Its process."""
    lines: str
    inputs: int
    lengths: List[int]


class Timeline:
    """What one process did: a row of the timeline."""

    def __init__(self, pid: int, start: float) -> None:
        self.pid = pid
        self.start = start
        self.end = start
        self.stages: Dict[str, float] = {}
        self.lines = 0
        self.seconds = array("d")
        """How long each batch took."""
        self.last: Optional[BatchProfile] = None
        self.spans: List[Span] = []
        self.batches: List[Span] = []
        """Its batches."""
        self._resolution = _RESOLUTION

    def charge(self, stages: Dict[str, float], spans: List[Span], end: float) -> None:
        for stage, seconds in stages.items():
            self.stages[stage] = self.stages.get(stage, 0.0) + seconds
        self.end = end
        self.spans += spans
        if len(self.spans) > _MAX_SPANS or len(self.batches) > _MAX_SPANS:
            while max(len(self.spans), len(self.batches)) > _MAX_SPANS / 2:
                self._resolution *= 2
                self.spans = coarsen(self.spans, self._resolution)
                self.batches = []
        if self._resolution > _RESOLUTION:
            # What is merged can reach over the end of a batch, and no slice may do that.
            self.batches = []


class RunProfile(Recorder):
    """
    Follows one run of the command.

    # Parameters

    with_timeline : `bool`, optional (default = `False`)
        Whether to keep what a timeline needs.
    from_process_start : `bool`, optional (default = `False`)
        Whether the time since this process was started belongs to the run, as imports. Only the
        first run of a process can have it.
    """

    def __init__(self, with_timeline: bool = False, from_process_start: bool = False) -> None:
        global _is_first_run
        now = time.monotonic()
        since = process_start() if from_process_start and _is_first_run else now
        _is_first_run = False
        self.detail = SPANS if with_timeline else SUMS
        self.parent = Timeline(os.getpid(), since)
        self.workers: Dict[int, Timeline] = {}
        self.slowest: List[Tuple[float, int, SlowBatch]] = []
        self.tokens = self.padded = 0
        self.bytes_to_workers = self.bytes_from_workers = 0
        self.failures = 0
        self.memory: Dict[int, Dict[str, int]] = {}
        self.predicting_since: Optional[float] = None
        self.predicting_until: Optional[float] = None
        self._swapped_before = swapped()
        self._watch = Stopwatch(OTHER, since, with_timeline)
        if since < now:
            self._watch.restart(since, IMPORTS)

    def stage(self, name: str) -> ContextManager[None]:
        return self._watch.stage(name)

    @contextmanager
    def predicting(self) -> Iterator[None]:
        self.predicting_since = time.monotonic()
        try:
            yield
        finally:
            # Everything is written, and the workers are still there to be looked at.
            self.predicting_until = time.monotonic()
            self.memory = memory_of([self.parent.pid, *self.workers])

    def count_sent(self, size: int) -> None:
        self.bytes_to_workers += size

    def count_received(self, size: int) -> None:
        self.bytes_from_workers += size

    def add(self, batch: Batch, result: BatchResult) -> None:
        """Takes what a worker noted of a batch. There is none of a batch whose worker died."""
        profile = result.profile
        self.failures += len(result.failures)
        if profile is None:
            return
        track = self.workers.get(profile.pid)
        if track is None:
            track = self.workers[profile.pid] = Timeline(profile.pid, profile.since)
        seconds = profile.ended - profile.started
        lines = batch.describe() if self.detail == SPANS else ""
        if self.detail == SPANS:
            track.batches.append(
                Span(f"batch {batch.number}", profile.started, profile.ended, lines)
            )
        spans = [item._replace(lines=lines) for item in profile.spans]
        track.charge(profile.stages, spans, profile.ended)
        track.lines += len(batch.values)
        track.seconds.append(seconds)
        track.last = profile._replace(lengths=[], spans=[])
        self.tokens += profile.tokens
        self.padded += profile.padded
        if len(self.slowest) < _SLOWEST or seconds > self.slowest[0][0]:
            slow = SlowBatch(
                seconds,
                batch.number,
                profile.pid,
                batch.describe(),
                len(batch.values),
                profile.lengths,
            )
            keep = heapq.heappush if len(self.slowest) < _SLOWEST else heapq.heappushpop
            keep(self.slowest, (seconds, batch.number, slow))

    def predicted(self) -> Tuple[float, float]:
        """From when to when there was a worker that could predict: one that is spawned loads for
        seconds after the parent is ready."""
        until = self.predicting_until or self.parent.end
        ready = [t.start + t.stages.get(STARTING, 0.0) for t in self.workers.values()]
        return max(self.predicting_since or until, min(ready, default=0.0)), until

    def finish(self) -> None:
        """Ends the measurement and leaves everything as it was."""
        self.parent.charge(*self._watch.take())
        for track in self.workers.values():
            # A worker that is not heard of any more has no work, unless it died.
            rest = (self.predicting_until or 0.0) - track.end
            if rest > 0 and track.pid in self.memory:
                last = Span(WAITING, track.end, track.end + rest)
                spans = [last] if self.detail == SPANS else []
                track.charge({WAITING: rest}, spans, track.end + rest)
        before, after = self._swapped_before, swapped()
        self.swapped = after[0] - before[0], after[1] - before[1]
        self.cpu_seconds = time.process_time()
