"""
The flow of the data: source, batching, executor, order, sink, in one loop of one thread.
"""

import time
from collections import deque
from typing import Deque, Dict, Iterator, List, Optional, Sequence

from allennlp_parallel_predict.common.errors import (
    JoinError,
    TooManyErrors,
    WorkerError,
    explain,
    shown,
)
from allennlp_parallel_predict.common.messages import Batch, BatchResult
from allennlp_parallel_predict.common.recorder import current, stage
from allennlp_parallel_predict.common.stages import (
    ORDERING,
    READING,
    WAITING_FOR_INPUT,
    WAITING_FOR_WORKERS,
)
from allennlp_parallel_predict.data.batching import Batching
from allennlp_parallel_predict.data.reorder_buffer import CompletedBatch, ReorderBuffer
from allennlp_parallel_predict.data.sinks import Sink
from allennlp_parallel_predict.data.sources import Source
from allennlp_parallel_predict.executors.base import Executor, fill
from allennlp_parallel_predict.pipeline.bad_input import explain_input
from allennlp_parallel_predict.pipeline.checkpoint import Checkpoint
from allennlp_parallel_predict.pipeline.progress import Progress
from allennlp_parallel_predict.pipeline.run_metrics import RunMetrics
from allennlp_parallel_predict.pipeline.signals import Interrupts

_GROUP = 256
"""Results that are written at once, at most: that bounds the memory for the text of them all."""


class Pipeline:
    """
    Predicts everything that a source yields, with an executor that has been started.

    # Parameters

    interrupts : `Interrupts`
        What may end the run early, but not during a write.
    checkpoint : `Checkpoint`, optional (default = `None`)
        Where to record, every `checkpoint_interval` seconds, how far the run is.
    max_errors : `int`, optional (default = `None`)
        The number of failures that is too many.
    metrics : `RunMetrics`, optional (default = `None`)
        What counts the batches, and is given the time to answer requests.
    first_number : `int`, optional (default = `0`)
        That of the first batch: the executor may have had others.
    input_file : `str`, optional (default = `None`)
        The name of the input for messages, if there are several.
    """

    def __init__(
        self,
        source: Source,
        batching: Batching,
        executor: Executor,
        sink: Sink,
        *,
        progress: Progress,
        interrupts: Interrupts,
        checkpoint: Optional[Checkpoint] = None,
        checkpoint_interval: float = 5.0,
        max_errors: Optional[int] = None,
        metrics: Optional[RunMetrics] = None,
        first_number: int = 0,
        input_file: Optional[str] = None,
    ) -> None:
        self._source = source
        self._executor = executor
        self._sink = sink
        self._progress = progress
        self._interrupts = interrupts
        self._checkpoint = checkpoint
        self._checkpoint_interval = checkpoint_interval
        self._max_errors = max_errors
        self._metrics = metrics or RunMetrics(executor)
        self._batching = batching
        self._has_windows = batching.span() > batching.batch_size
        self.next_number = first_number
        """That of the next batch."""
        self._batches: Iterator[Optional[Batch]] = batching.batches(
            source, source.kind, first_number, input_file
        )
        self._order = ReorderBuffer(sink.written.positions)
        self._in_work: Dict[int, Batch] = {}
        self._restart_points: Deque[int] = deque()
        self._last_position = -1
        self._next_checkpoint = time.monotonic() + checkpoint_interval
        self._restart_at = sink.written
        """The last position from which the run could go on as if it had not been interrupted."""
        self._is_restart_point = False
        self._is_exhausted = False
        self._is_complete = False
        self._source_error: Optional[BaseException] = None

    def run(self) -> None:
        """
        Runs to the end of the input.

        # Raises

        `Exception`
            Whatever the predictor or the source raises, after what comes before it is written.
        """
        try:
            with current().predicting():
                while self._advance():
                    pass
        finally:
            # Closes the input. Left to the interpreter's exit, Python 3.8 complains about it.
            getattr(self._batches, "close", lambda: None)()
        if self._source_error is not None:
            raise self._source_error
        self._is_complete = True

    def _advance(self) -> bool:
        """Hands out what there is and writes what is finished; returns whether there is more."""
        has_to_wait = self._submit()
        if self._is_exhausted and self._executor.is_idle():
            return False
        fileno = self._source.fileno()
        wake = [fileno] if has_to_wait and fileno is not None else []
        if has_to_wait:
            with self._interrupts.shielded():
                self._sink.flush()
        with stage(WAITING_FOR_INPUT if wake else WAITING_FOR_WORKERS):
            results = self._executor.collect(wake=[*wake, *self._metrics.filenos()])
        self._metrics.serve()
        self._write_in_groups(self._ready(results))
        return True

    def _submit(self) -> bool:
        """Gives the executor what it can take; returns whether the source had too little."""
        return not fill(self._executor, self._next_batch) and not self._is_exhausted

    def _next_batch(self) -> Optional[Batch]:
        batch: Optional[Batch] = None
        try:
            with stage(READING):
                batch = None if self._is_exhausted else next(self._batches)
        except StopIteration:
            self._is_exhausted = True
        except Exception as error:
            # As in `predict`, what was read before the error is predicted and written.
            self._is_exhausted, self._source_error = True, error
        if batch is not None:
            self.next_number = batch.number + 1
            self._in_work[batch.number] = batch
            self._metrics.submit(batch)
            if self._checkpoint is not None:
                self._last_position = max(self._last_position, self._batching.last_position(batch))
                if batch.ends_window:
                    self._restart_points.append(self._last_position + 1)
        return batch

    def _ready(self, results: Sequence[BatchResult]) -> Iterator[CompletedBatch]:
        """What can be written now, in order."""
        for result in results:
            for completed in self._batching.with_copies(self._finished(result)):
                with stage(ORDERING):
                    ready = list(self._order.add(completed))
                yield from ready

    def _finished(self, result: BatchResult) -> CompletedBatch:
        batch = self._in_work.pop(result.number)
        self._metrics.finish(batch, result)
        current().add(batch, result)
        error = None
        if result.fatal is not None:
            where = _where(batch, result.fatal.offset)
            error = result.fatal.error.rebuild(where)
            if isinstance(error, (JoinError, WorkerError)):
                explain(error, f"{error}\n{where}")
            else:
                traceback = result.fatal.error.traceback
                sentence = explain_input(batch, result.fatal.offset, error, traceback)
                if sentence is not None:
                    explain(error, sentence)
            self._is_exhausted = True  # nothing after it will be written
        return CompletedBatch(batch, result, error)

    def _write_in_groups(self, runs: Iterator[CompletedBatch]) -> None:
        """Writes several at once, but none together with one that may be the last."""
        group: List[CompletedBatch] = []
        for run in runs:
            if run.error is not None or run.result.failures:
                self._write(group)
                self._write([run])
                group = []
                continue
            group.append(run)
            if len(group) == _GROUP or self._ends_window(run):
                self._write(group)
                group = []
        self._write(group)

    def _ends_window(self, run: CompletedBatch) -> bool:
        """Whether a run may go on behind it, but not behind the results around it."""
        if not self._has_windows or not self._restart_points:
            return False
        return run.batch.positions[-1] + 1 == self._restart_points[0]

    def _write(self, runs: List[CompletedBatch]) -> None:
        if not runs:
            return
        error = runs[-1].error
        with self._interrupts.shielded():
            self._is_restart_point = False  # also if the write fails half-way
            self._sink.write(runs)
            self._is_restart_point = error is None and self._has_reached_restart_point()
            if self._is_restart_point and self._sink.is_divisible:
                self._restart_at = self._sink.written
        if error is not None:
            raise error
        self._after_write()

    def _has_reached_restart_point(self) -> bool:
        is_there = False
        while self._restart_points and self._restart_points[0] <= self._sink.written.positions:
            is_there = self._restart_points.popleft() == self._sink.written.positions
        return is_there

    def _after_write(self) -> None:
        written = self._sink.written
        self._progress.update(written.positions, written.failures, self._executor)
        if self._max_errors is not None and written.failures > self._max_errors:
            raise TooManyErrors(
                f"{written.failures} inputs failed, which is more than max_errors allows "
                f"({self._max_errors}); the last of them is by input line {written.lines}"
            )
        can_save = self._is_restart_point or self._sink.is_divisible
        if self._checkpoint and can_save and time.monotonic() >= self._next_checkpoint:
            self._checkpoint.hash_files()  # takes its time, and may be interrupted
            self.save_checkpoint()

    def finish(self) -> None:
        """Brings everything to the disk; then nothing is left to resume."""
        self._sink.end_part()
        if self._checkpoint is None:
            self._sink.flush()
        else:
            self._sink.sync()
            self._checkpoint.remove()
            self._checkpoint = None  # an interrupt from now on does not bring it back

    def save_checkpoint(self) -> None:
        """Records how far the run is for certain and could go on from."""
        if self._checkpoint is None:
            return
        with self._interrupts.shielded():
            if self._is_restart_point:
                self._restart_at = self._sink.end_part()
            self._sink.sync()
            state_change = None if self._is_complete else self._executor.state_change
            self._checkpoint.save(self._restart_at, state_change)
        self._next_checkpoint = time.monotonic() + self._checkpoint_interval


def _where(batch: Batch, offset: int) -> str:
    """Which input an error is about, for the person who reads the remote traceback."""
    if offset >= len(batch.values):
        return f"In {batch.describe()}:"
    text = shown(batch.text(offset))
    return f"In a worker, at {batch.line(offset)}: {text}"
