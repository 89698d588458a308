"""What the parent notes of a run: its own time, and what the workers send with their results."""

import heapq
import os
import time
from array import array
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from allennlp_parallel_predict.common.messages import SPANS, SUMS, Batch, BatchProfile, BatchResult
from allennlp_parallel_predict.common.stages import (
    ENDING,
    EXTRACTING,
    IMPORTS,
    ORDERING,
    OTHER,
    READING,
    RECEIVING,
    SENDING,
    STARTING,
    STARTING_WORKERS,
    WAITING,
    WAITING_FOR_INPUT,
    WAITING_FOR_WORKERS,
    WRITING,
)
from allennlp_parallel_predict.common.stopwatch import Span, Stopwatch, coarsen
from allennlp_parallel_predict.data.reorder_buffer import ReorderBuffer
from allennlp_parallel_predict.data.sinks import Sink
from allennlp_parallel_predict.executors import Executor
from allennlp_parallel_predict.executors.pool import executor as pool_executor
from allennlp_parallel_predict.executors.pool.channel import Channel
from allennlp_parallel_predict.models import archives
from allennlp_parallel_predict.profiling.memory import memory_of, process_start, swapped
from allennlp_parallel_predict.worker.hooks import Patches

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


class RunProfile:
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
        self._patches = Patches()
        self._watch_archives()

    def stage(self, name: str) -> Any:
        """A context manager for a part of the run."""
        return self._watch.stage(name)

    def _watch_archives(self) -> None:
        unpacked = archives.unpacked

        @contextmanager
        def in_stage(archive_file: str) -> Iterator[str]:
            context = unpacked(archive_file)
            with self._watch.stage(EXTRACTING):
                folder = context.__enter__()
            try:
                yield folder
            finally:
                with self._watch.stage(EXTRACTING):
                    context.__exit__(None, None, None)

        self._patches.set(archives, "unpacked", in_stage)

    def watch_executor(self, executor: Executor) -> None:
        """Sets the stages of the start and the end of the workers."""
        self._patches.wrap(executor, "start", lambda f: self._watch.timed(STARTING_WORKERS, f))
        for name in ("close", "kill"):
            self._patches.wrap(executor, name, self._before_ending)

    def _before_ending(self, end: Callable[[], None]) -> Callable[[], None]:
        def look_and_end() -> None:
            self.stop_predicting()
            end()

        return self._watch.timed(ENDING, look_and_end)

    def watch_pipeline(
        self,
        batches: Iterator[Optional[Batch]],
        executor: Executor,
        order: ReorderBuffer,
        sink: Sink,
    ) -> Iterator[Optional[Batch]]:
        """Sets the stages of the parent on what does its work; returns the batches with theirs."""
        self.predicting_since = time.monotonic()
        patches, timed = self._patches, self._watch.timed
        patches.set(executor, "collect", self._collect(executor.collect))
        patches.wrap(executor, "submit", lambda f: timed(SENDING, f))
        patches.wrap(order, "add", lambda f: timed(ORDERING, lambda run: list(f(run))))
        for name in ("write", "flush", "sync", "close"):
            patches.wrap(sink, name, lambda f: timed(WRITING, f))
        patches.wrap(Channel, "send", lambda f: timed(SENDING, f))
        patches.wrap(Channel, "flush", lambda f: timed(SENDING, f))
        patches.wrap(Channel, "receive", lambda f: timed(RECEIVING, f))
        patches.wrap(pool_executor, "dumps", lambda f: timed(SENDING, self._counting_sent(f)))
        patches.wrap(
            pool_executor, "load_result", lambda f: timed(RECEIVING, self._counting_received(f))
        )
        end = object()
        return iter(timed(READING, lambda: next(batches, end)), end)

    def _collect(self, collect: Callable[..., Any]) -> Callable[..., Any]:
        for_workers = self._watch.timed(WAITING_FOR_WORKERS, collect)
        for_input = self._watch.timed(WAITING_FOR_INPUT, collect)

        def collect_in_stage(*args: Any, **kwargs: Any) -> Any:
            return (for_input if kwargs.get("wake") else for_workers)(*args, **kwargs)

        return collect_in_stage

    def _counting_sent(self, dumps: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        def dumps_and_count(value: Any) -> bytes:
            data = dumps(value)
            self.bytes_to_workers += len(data)
            return data

        return dumps_and_count

    def _counting_received(self, load: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def load_and_count(message: Any) -> Any:
            self.bytes_from_workers += len(message)
            return load(message)

        return load_and_count

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

    def stop_predicting(self) -> None:
        """Everything is written, and the workers are still there to be looked at."""
        if self.predicting_until is None:
            self.predicting_until = time.monotonic()
            self.memory = memory_of([self.parent.pid, *self.workers])

    def predicting(self) -> Tuple[float, float]:
        """From when to when there was a worker that could predict: one that is spawned loads for
        seconds after the parent is ready."""
        until = self.predicting_until or self.parent.end
        ready = [t.start + t.stages.get(STARTING, 0.0) for t in self.workers.values()]
        return max(self.predicting_since or until, min(ready, default=0.0)), until

    def finish(self) -> None:
        """Ends the measurement and leaves everything as it was."""
        self.stop_predicting()
        self._patches.undo()
        self.parent.charge(*self._watch.take())
        assert self.predicting_until is not None
        for track in self.workers.values():
            # A worker that is not heard of any more has no work, unless it died.
            rest = self.predicting_until - track.end
            if rest > 0 and track.pid in self.memory:
                last = Span(WAITING, track.end, self.predicting_until)
                spans = [last] if self.detail == SPANS else []
                track.charge({WAITING: rest}, spans, self.predicting_until)
        before, after = self._swapped_before, swapped()
        self.swapped = after[0] - before[0], after[1] - before[1]
        self.cpu_seconds = time.process_time()
