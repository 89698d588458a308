"""
Finds fast settings by trying them: each measurement predicts a sample with a pool for some seconds.

The number of workers and the size of batches hardly depend on each other, so they are tried one
after the other and not all combinations of both; the best of them then run again, for longer.
"""

import math
import os
import time
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.errors import ParallelPredictError
from allennlp_parallel_predict.common.messages import (
    TIMES,
    Batch,
    BatchKind,
    BatchProfile,
    BatchResult,
    OnError,
    WorkerOptions,
)
from allennlp_parallel_predict.data.batching import Batching
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.executors import Executor
from allennlp_parallel_predict.profiling.memory import memory_of, total_memory
from allennlp_parallel_predict.settings import Settings, build_settings

BATCH_SIZES = (1, 4, 16, 32, 64, 128)
_FIRST_BATCH_SIZE = 32
_FINALISTS = 3
_SHORTEST = 0.5
"""Seconds of a measurement under which it says nothing."""
_AS_FAST = 0.98
"""Speeds that differ by less are the same: then bytes and memory decide."""
_GOLDEN = (math.sqrt(5) - 1) / 2


class Candidate(NamedTuple):
    """Settings that can be tried."""

    workers: int
    threads: int
    batch_size: int
    batching: str = "in_order"

    def settings(self) -> Dict[str, Any]:
        """As in a file for `--parallel-config`."""
        return {
            "executor": {
                "type": "process_pool",
                "num_workers": self.workers,
                "threads_per_worker": self.threads,
            },
            "batching": {"type": self.batching, "batch_size": self.batch_size},
        }


class Measurement(NamedTuple):
    """What came of a candidate."""

    candidate: Candidate
    lines_per_second: float
    memory: float
    """The proportional set sizes of all processes, in bytes."""
    seconds: float
    """How long it was tried."""
    same_bytes: Optional[bool] = None
    """Whether its output was `allennlp predict`'s; `None` if no line can be compared."""


class Tuner:
    """
    # Parameters

    predictor : `Predictor`
        What predicts.
    inputs : `Sequence[Input]`
        A sample of the input.
    kind : `BatchKind`
        The kind of the inputs.
    cpus : `int`
        The CPUs that there are to use.
    predict_batch_size : `int`, optional (default = `1`)
        The `--batch-size` of the `allennlp predict` whose bytes are compared.
    tell : `Callable[[str], None]`, optional (default = `None`)
        Who is told what is being tried.
    """

    def __init__(
        self,
        predictor: Predictor,
        inputs: Sequence[Input],
        kind: BatchKind,
        cpus: int,
        predict_batch_size: int = 1,
        tell: Optional[Callable[[str], None]] = None,
    ) -> None:
        self._predictor = predictor
        self._inputs = inputs
        self._kind = kind
        self._cpus = cpus
        self._reference = Candidate(1, 1, predict_batch_size)
        self._expected: Dict[int, str] = {}
        self._tell = tell or (lambda text: None)
        self.measurements: Dict[Candidate, Measurement] = {}
        self.state_change: Optional[str] = None
        """Why only one worker can be used, if that is so."""

    def search(self, budget: float) -> List[Measurement]:
        """
        Tries settings for about `budget` seconds.

        # Returns

        `List[Measurement]`
            What was tried, the best first.
        """
        end = time.monotonic() + budget
        reference = self.attempt(self._reference, 0.1 * budget)
        line_seconds = 1 / max(reference.lines_per_second, 1e-9)
        crews = executors_for(self._cpus)
        size = _largest(_FIRST_BATCH_SIZE, line_seconds, 0.25 * budget / len(crews), self._inputs)
        self._try([Candidate(workers, threads, size) for workers, threads in crews], 0.3 * budget)
        crew = self.ranked()[0].candidate
        rest = end - time.monotonic()
        for name in ("in_order", "bucket"):
            self._climb(crew._replace(batching=name), 0.3 * rest)
        # All crews again: something else may have kept the machine busy when they were compared.
        best = self.ranked()[0].candidate
        again = [best._replace(workers=workers, threads=threads) for workers, threads in crews]
        self._try(again, 0.3 * (end - time.monotonic()))
        finalists = self.ranked()[:_FINALISTS]
        for share in (0.5, 1.0):  # in turn, so that what else the machine does falls on all
            rest = share * (end - time.monotonic())
            self._try([measurement.candidate for measurement in finalists], rest)
        return self.ranked()

    def _try(self, candidates: Sequence[Candidate], budget: float) -> None:
        if self.state_change is not None:
            candidates = [candidate for candidate in candidates if candidate.workers == 1]
        for candidate in candidates:
            self.attempt(candidate, max(_SHORTEST, budget / len(candidates)))

    def _climb(self, candidate: Candidate, budget: float) -> None:
        """Tries larger and larger batches, until they only make it slower or take too long."""
        sizes = [size for size in BATCH_SIZES if size <= len(self._inputs)]
        sizes = [size for size in sizes if (size, candidate.batching) != (1, "bucket")]
        best, falls, end = 0.0, 0, time.monotonic() + budget
        for number, size in enumerate(sizes):
            left = max(0.0, end - time.monotonic())
            measurement = candidate._replace(batch_size=size)
            # A worker's second batch is the first that counts.
            if falls == 2 or best and 2 * size * measurement.workers / best > max(_SHORTEST, left):
                return
            self._try([measurement], left / (len(sizes) - number))
            rate = (
                self.measurements[measurement].lines_per_second
                if measurement in self.measurements
                else 0.0
            )
            falls = falls + 1 if rate < best else 0
            best = max(best, rate)

    def attempt(self, candidate: Candidate, seconds: float) -> Measurement:
        """Tries one candidate, for the second time perhaps, and says what is known of it then."""
        settings = build_settings(candidate.settings())
        batches = self._batches(settings.batching)
        try:
            ran = _Run(settings, self._predictor, batches, seconds)
        except ParallelPredictError as error:
            self._tell(f"{candidate}: {error}")
            return self._note(Measurement(candidate, 0.0, 0.0, seconds))
        self.state_change = self.state_change or settings.executor.state_change
        if candidate == self._reference:
            self._expected.update(ran.outputs)
        common = self._expected.keys() & ran.outputs.keys()
        same = all(self._expected[n] == ran.outputs[n] for n in common) if common else None
        measurement = Measurement(candidate, ran.lines_per_second(), ran.memory, ran.seconds, same)
        self._tell(
            f"{candidate.workers} x {candidate.threads} threads, batches of "
            f"{candidate.batch_size}, {candidate.batching}: "
            f"{measurement.lines_per_second:,.1f} lines/s"
        )
        return self._note(measurement)

    def _note(self, measurement: Measurement) -> Measurement:
        before = self.measurements.get(measurement.candidate)
        if before is not None:
            seconds = before.seconds + measurement.seconds
            rates = (
                before.lines_per_second * before.seconds,
                measurement.lines_per_second * measurement.seconds,
            )
            known = [
                same for same in (before.same_bytes, measurement.same_bytes) if same is not None
            ]
            measurement = measurement._replace(
                lines_per_second=sum(rates) / seconds,
                memory=max(before.memory, measurement.memory),
                seconds=seconds,
                same_bytes=all(known) if known else None,
            )
        self.measurements[measurement.candidate] = measurement
        return measurement

    def ranked(self) -> List[Measurement]:
        """The fastest first; of those that are as fast, the one with predict's bytes."""
        left = sorted(self.measurements.values(), key=lambda t: -t.lines_per_second)
        best: List[Measurement] = []
        while left:
            as_fast = [t for t in left if t.lines_per_second >= _AS_FAST * left[0].lines_per_second]
            best.append(min(as_fast, key=lambda t: (t.same_bytes is not True, t.memory)))
            left.remove(best[-1])
        return best

    def _batches(self, batching: Batching) -> Iterator[Batch]:
        """Batches without end, short and long ones in turn whenever one stops."""
        batches = [b for b in batching.batches(self._inputs, self._kind) if b is not None]
        batches.sort(key=lambda batch: sum(len(str(value)) for value in batch.values))
        order = sorted(range(len(batches)), key=lambda n: n * _GOLDEN % 1)
        number = 0
        while batches:
            for n in order:
                yield batches[n]._replace(number=number)
                number += 1


class _Run:
    """A pool at work for some seconds."""

    def __init__(
        self, settings: Settings, predictor: Predictor, batches: Iterator[Batch], seconds: float
    ) -> None:
        executor = settings.executor
        options = WorkerOptions(OnError.SKIP, profile=TIMES, exact=settings.is_exact)
        self.outputs: Dict[int, str] = {}
        self.memory = 0.0
        self._in_work: Dict[int, Batch] = {}
        self._profiles: Dict[int, List[BatchProfile]] = {}
        self._lines: Dict[int, List[int]] = {}
        start = time.monotonic()
        with executor.preparing():
            try:
                executor.start(predictor, options)
                while not self._is_enough(executor, time.monotonic() - start, seconds):
                    while executor.has_room():
                        batch = next(batches)
                        self._in_work[batch.number] = batch
                        executor.submit(batch)
                    for result in executor.collect(timeout=0.1):
                        self._take(result)
                self.memory = total_memory(memory_of([os.getpid(), *self._profiles]))["pss_bytes"]
            finally:
                executor.kill()
        self.seconds = time.monotonic() - start

    def _is_enough(self, executor: Executor, passed: float, seconds: float) -> bool:
        have = sum(len(profiles) >= 2 for profiles in self._profiles.values())
        return passed > seconds and (have >= executor.num_workers or passed > 2 * seconds)

    def _take(self, result: BatchResult) -> None:
        batch = self._in_work.pop(result.number)
        for position, output in zip(batch.positions, result.outputs):
            if output is not None:
                self.outputs[position] = output
        if result.profile is not None:
            self._profiles.setdefault(result.profile.pid, []).append(result.profile)
            self._lines.setdefault(result.profile.pid, []).append(len(batch.values))

    def lines_per_second(self) -> float:
        """Of each worker by itself, and without its first batch, which is a slow one."""
        total = 0.0
        for pid, profiles in self._profiles.items():
            lines, since = self._lines[pid], profiles[0].started
            if len(lines) > 1:
                lines, since = lines[1:], profiles[0].ended
            total += sum(lines) / max(1e-9, profiles[-1].ended - since)
        return total


def executors_for(cpus: int) -> List[Tuple[int, int]]:
    """Numbers of workers, and of threads in each, that are worth trying on so many CPUs."""
    workers = sorted({cpus} | {2**n for n in range(cpus.bit_length()) if 2**n <= cpus})
    crews = [(n, max(1, cpus // n)) for n in workers]
    if cpus > 1:
        crews.append((max(1, cpus // 2), 1))  # where memory is slow, half of the CPUs can be enough
    return list(dict.fromkeys(crews))


def _largest(size: int, line_seconds: float, seconds: float, inputs: Sequence[Input]) -> int:
    """The largest batch size up to `size` of which a measurement of `seconds` has a few batches."""
    fits = [s for s in BATCH_SIZES if 3 * s * line_seconds <= max(_SHORTEST, seconds)]
    fits = [s for s in fits if s <= size and s <= len(inputs)]
    return max(fits, default=1)
