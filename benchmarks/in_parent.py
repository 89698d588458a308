"""Runs our pipeline with a predictor that needs no archive, and takes times in the parent."""

import os
import time
from pathlib import Path
from typing import List, Sequence, Tuple

import psutil
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.messages import WorkerOptions
from allennlp_parallel_predict.data.batching import InOrderBatching
from allennlp_parallel_predict.data.files import OutputFile
from allennlp_parallel_predict.data.reorder_buffer import CompletedBatch
from allennlp_parallel_predict.data.sinks import Sink
from allennlp_parallel_predict.data.sources import LineSource
from allennlp_parallel_predict.executors import ProcessPoolExecutor
from allennlp_parallel_predict.pipeline.pipeline import Pipeline
from allennlp_parallel_predict.pipeline.progress import Progress
from allennlp_parallel_predict.pipeline.signals import Interrupts

Mark = Tuple[float, int, float, int]
"""A moment, the lines written by then, the CPU seconds and the resident bytes of this process."""
_INTERVAL = 0.25


class MarkingSink(Sink):
    """A sink that keeps a record of how far it was when."""

    def __init__(self, output_file: str) -> None:
        super().__init__(OutputFile(output_file), print_to_console=False)
        self.marks: List[Mark] = []
        self._process = psutil.Process()
        self._next = 0.0

    def write(self, runs: Sequence[CompletedBatch]) -> None:
        super().write(runs)
        if time.monotonic() >= self._next:
            self.mark()

    def mark(self) -> None:
        now = time.monotonic()
        resident = self._process.memory_info().rss
        self.marks.append((now, self.written.positions, time.process_time(), resident))
        self._next = now + _INTERVAL


def run(predictor: Predictor, inputs: Path, output: Path, workers: int, size: int) -> List[Mark]:
    """Predicts a file; the first mark is at the first result, the last at the end."""
    executor = ProcessPoolExecutor(num_workers=workers)
    sink = MarkingSink(os.fspath(output))
    source = LineSource(os.fspath(inputs))
    with executor.preparing():
        executor.start(predictor, WorkerOptions())
        try:
            progress = Progress("never", source, False)
            Pipeline(
                source,
                InOrderBatching(size),
                executor,
                sink,
                progress=progress,
                interrupts=Interrupts(),
            ).run()
            sink.mark()
        finally:
            sink.close()
            executor.close()
    return sink.marks
