"""What an executor does in some seconds, measured on a sample of the input."""

import os
import time
from typing import Dict, Iterable, Iterator, List, Optional, Sequence, Tuple

import psutil

from allennlp_parallel_predict.common.messages import Batch, BatchKind, BatchResult, Failure
from allennlp_parallel_predict.data.batching import Batching
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.executors.base import Executor, fill
from allennlp_parallel_predict.profiling.memory import memory_of, total_memory


class Trial:
    """
    Predicts until the time is up or the batches end; up to twice that time, so that each worker
    finishes two, and with `waits` until one is finished. The executor, which has been started, is
    ended here. `lines_per_second` needs `WorkerOptions.profile`.
    """

    def __init__(
        self, executor: Executor, batches: Iterator[Batch], seconds: float, waits: bool = False
    ) -> None:
        self.outputs: Dict[int, str] = {}
        """By position."""
        self.failures: Dict[int, Failure] = {}
        """By line number."""
        self._work: Dict[int, List[Tuple[float, float, int]]] = {}
        self.arrivals: List[Tuple[float, int]] = []
        """When each result came, in seconds, and its number of inputs."""
        start = time.monotonic()
        in_work: Dict[int, Batch] = {}

        def take() -> Optional[Batch]:
            batch = next(batches, None)
            if batch is not None:
                in_work[batch.number] = batch
            return batch

        try:
            while True:
                has_more = fill(executor, take)
                results = executor.collect(timeout=0.1)
                self.seconds = time.monotonic() - start
                for result in results:
                    self._take(in_work.pop(result.number), result)
                if not (has_more or in_work) or self._is_enough(
                    executor.num_workers, seconds, waits
                ):
                    break
            children = [child.pid for child in psutil.Process().children(recursive=True)]
            pids = {os.getpid(), *(self._work or children)}
            self.memory: float = total_memory(memory_of(pids))["pss_bytes"]
        finally:
            executor.kill()

    def _is_enough(self, workers: int, seconds: float, waits: bool) -> bool:
        have = sum(len(work) >= 2 for work in self._work.values())
        is_over = self.seconds > seconds and (have >= workers or self.seconds > 2 * seconds)
        return is_over and not (waits and not self.arrivals)

    def _take(self, batch: Batch, result: BatchResult) -> None:
        outputs = zip(batch.positions, result.outputs)
        self.outputs.update({n: output for n, output in outputs if output is not None})
        for failure in result.failures:
            self.failures.setdefault(batch.line_numbers[failure.offset], failure)
        self.arrivals.append((self.seconds, len(batch.values)))
        if result.profile is not None:
            work = self._work.setdefault(result.profile.pid, [])
            work.append((result.profile.started, result.profile.ended, len(batch.values)))

    def inputs(self) -> int:
        return len(self.outputs) + len(self.failures)

    def lines_per_second(self) -> float:
        """Of each worker by itself, and without its first batch, which is a slow one."""
        total = 0.0
        for (started, ended, lines), *others in self._work.values():
            since, until = (ended, others[-1][1]) if others else (started, ended)
            counted = sum(other[2] for other in others) if others else lines
            total += counted / max(1e-9, until - since)
        return total


def mixed_batches(batching: Batching, inputs: Sequence[Input], kind: BatchKind) -> List[Batch]:
    """The batches of a sample, short and long ones in turn wherever one stops."""
    batches = [batch for batch in batching.batches(inputs, kind) if batch is not None]
    batches.sort(key=lambda batch: sum(len(str(value)) for value in batch.values))
    order = sorted(range(len(batches)), key=lambda n: n * 0.618 % 1)  # the golden section
    return [batches[n] for n in order]


def numbered(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches with the numbers that an executor expects."""
    for number, batch in enumerate(batches):
        yield batch._replace(number=number)
