"""
Finds fast settings by trying them: each measurement predicts a sample with a pool for some seconds.

By successive halving: all candidates are tried for a short time, the better half for longer, and so
on, so that the best are measured several times, and beside each other.
"""

import itertools
import multiprocessing
import time
from statistics import median
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.errors import ParallelPredictError, WorkerDied
from allennlp_parallel_predict.common.messages import TIMES, BatchKind, OnError, WorkerOptions
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.pipeline.trial import Trial, mixed_batches, numbered
from allennlp_parallel_predict.settings import build_settings

BATCH_SIZES = (1, 4, 16, 32, 64, 128)
_BATCHING = ("in_order", "bucket")
_MIDDLE = 32
"""The batch size with which numbers of workers are compared."""
_ROUNDS = 4
_SHORTEST = 0.5
"""Seconds of a measurement under which it says nothing."""
_AS_FAST = 0.98
"""Speeds that differ by less are the same: then bytes and memory decide."""
DISAGREEMENT = 0.15
"""Measurements of the same settings that differ by more say that the machine is not at rest."""


class Candidate(NamedTuple):
    """Settings that can be tried."""

    workers: int
    threads: int
    batch_size: int
    batching: str = "in_order"
    is_predict: bool = False
    """Whether it stands for `allennlp predict`, which is what users have now."""

    def settings(self) -> Dict[str, Any]:
        """As in a file for `--parallel-config`."""
        pool = {"num_workers": self.workers, "threads_per_worker": self.threads}
        process: Dict[str, Any] = {"type": "in_process"}
        return {
            "executor": process if self.is_predict else {"type": "process_pool", **pool},
            "batching": {"type": self.batching, "batch_size": self.batch_size},
        }

    def __str__(self) -> str:
        if self.is_predict:
            return f"allennlp predict --batch-size {self.batch_size}"
        pool = f"{self.workers} x {self.threads} threads"
        return f"{pool}, batches of {self.batch_size}, {self.batching}"


class Measurement(NamedTuple):
    """What came of a candidate."""

    candidate: Candidate
    rates: Tuple[float, ...]
    """Lines per second, each time that it was tried."""
    memory: float
    """The proportional set sizes of all processes, in bytes."""
    same_bytes: Optional[bool] = None
    """Whether its output was `allennlp predict`'s; `None` if no line can be compared."""

    @property
    def lines_per_second(self) -> float:
        return median(self.rates)

    @property
    def disagreement(self) -> float:
        """By how much the slowest measurement is below the fastest."""
        return 1 - min(self.rates) / max(self.rates) if max(self.rates) else 0.0


class Tuner:
    """Tries settings on a sample of the input; `batch_size` is the `--batch-size` of the
    `allennlp predict` that they are compared with, and `tell` is told what is being tried."""

    def __init__(
        self,
        predictor: Predictor,
        inputs: Sequence[Input],
        kind: BatchKind,
        cpus: int,
        batch_size: int = 1,
        tell: Optional[Callable[[str], None]] = None,
    ) -> None:
        self._predictor, self._inputs, self._kind = predictor, inputs, kind
        self._cpus = cpus
        self._tell = tell or (lambda text: None)
        self._sizes = sorted({*BATCH_SIZES, batch_size})
        self._reference = Candidate(1, 1, batch_size)  # one thread in each process, as in a pool
        self._expected: Dict[int, str] = {}
        self.predict = Candidate(1, cpus, batch_size, is_predict=True)
        self.measurements: Dict[Candidate, Measurement] = {}
        self.state_change: Optional[str] = None
        """Why only one worker can be used, if that is so."""

    def search(self, budget: float) -> List[Measurement]:
        """Tries settings for about `budget` seconds; returns what was tried, the best first."""
        end = time.monotonic() + budget
        self.attempt(self._reference, 0.1 * budget)
        self.attempt(self.predict, 0.1 * budget)
        pools = executors_for(self._cpus)
        sizes = [size for size in self._sizes if size <= len(self._inputs)]
        middle = max(size for size in sizes if size <= _MIDDLE)
        candidates = [Candidate(*pool, middle) for pool in pools]
        candidates += [Candidate(*pools[-1], n, name) for name in _BATCHING for n in sizes]
        for rounds in range(_ROUNDS, 0, -1):
            self._try([*candidates, self.predict], end, rounds)
            best = [one.candidate for one in self.ranked()]
            candidates = best[: max(2, len(candidates) // 2)]
            if rounds == _ROUNDS:  # the best pool was tried with batches of one size only
                pool = next((one for one in best if one[2:4] == (middle, "in_order")), best[0])
                candidates.append(best[0]._replace(workers=pool.workers, threads=pool.threads))
        self._repeat_unsteady(candidates, 0.1 * budget)
        return self.ranked()

    def _try(self, candidates: Sequence[Candidate], end: float, rounds: int) -> None:
        candidates = [c for c in candidates if c.workers == 1 or self.state_change is None]
        seconds = (end - time.monotonic()) / rounds / len(candidates)
        for candidate in dict.fromkeys(candidates):
            if time.monotonic() < end:
                self.attempt(candidate, max(_SHORTEST, seconds))

    def _repeat_unsteady(self, candidates: Sequence[Candidate], seconds: float) -> None:
        for one in [self.measurements[c] for c in candidates if c in self.measurements]:
            if one.disagreement > DISAGREEMENT:
                self._tell(
                    f"warning: measurements of {one.candidate} differ by {one.disagreement:.0%}: "
                    "something else uses this machine; they are repeated"
                )
                self.attempt(one.candidate, seconds)

    def attempt(self, candidate: Candidate, seconds: float) -> Measurement:
        """Tries one candidate, perhaps once more, and says what is known of it then."""
        settings = build_settings(candidate.settings())

        def run() -> Trial:
            options = WorkerOptions(OnError.SKIP, profile=TIMES, exact=settings.is_exact)
            batches = mixed_batches(settings.batching, self._inputs, self._kind)
            with settings.executor.preparing():
                settings.executor.start(self._predictor, options)
                return Trial(settings.executor, numbered(itertools.cycle(batches)), seconds)

        try:
            ran = _in_child(run, candidate.threads) if candidate.is_predict else run()
        except ParallelPredictError as error:
            self._tell(f"{candidate}: {error}")
            return self._note(Measurement(candidate, (0.0,), 0.0))
        self.state_change = self.state_change or settings.executor.state_change
        if candidate == self._reference:
            self._expected.update(ran.outputs)
        common = self._expected.keys() & ran.outputs.keys()
        same = all(self._expected[n] == ran.outputs[n] for n in common) if common else None
        self._tell(f"{candidate}: {ran.lines_per_second():,.1f} lines/s")
        return self._note(Measurement(candidate, (ran.lines_per_second(),), ran.memory, same))

    def _note(self, new: Measurement) -> Measurement:
        before = self.measurements.get(new.candidate)
        if before is not None:
            known = [one.same_bytes for one in (before, new) if one.same_bytes is not None]
            new = new._replace(
                rates=before.rates + new.rates,
                memory=max(before.memory, new.memory),
                same_bytes=all(known) if known else None,
            )
        self.measurements[new.candidate] = new
        return new

    def ranked(self) -> List[Measurement]:
        """The fastest first; of those that are as fast, the one with predict's bytes."""
        left = [one for one in self.measurements.values() if not one.candidate.is_predict]
        best: List[Measurement] = []
        while left:
            enough = _AS_FAST * max(one.lines_per_second for one in left)
            as_fast = [one for one in left if one.lines_per_second >= enough]
            best.append(min(as_fast, key=lambda one: (one.same_bytes is not True, one.memory)))
            left.remove(best[-1])
        return best


def _in_child(function: Callable[[], Trial], threads: int) -> Trial:
    """In a process of its own: what has used several threads can be forked no more."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def run() -> None:
        torch.set_num_threads(threads)
        sending.send(function())

    child = context.Process(target=run, daemon=True)
    child.start()
    sending.close()
    try:
        ran: Trial = receiving.recv()
        return ran
    except EOFError as error:
        raise WorkerDied("the process that stands for allennlp predict has ended") from error
    finally:
        child.join()


def executors_for(cpus: int) -> List[Tuple[int, int]]:
    """Numbers of workers, and of threads in each, that are worth trying on so many CPUs."""
    workers = sorted({cpus} | {2**n for n in range(cpus.bit_length()) if 2**n <= cpus})
    pools = [(max(1, cpus // 2), 1)]  # where memory is slow, half of the CPUs can be enough
    pools += [(n, max(1, cpus // n)) for n in workers]
    return list(dict.fromkeys(pools))
