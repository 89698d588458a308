"""Puts results back into input order."""

from typing import Dict, Iterator, NamedTuple, Optional

from allennlp_parallel_predict.common.messages import Batch, BatchResult, are_consecutive


class CompletedBatch(NamedTuple):
    """Consecutive inputs, and what became of them."""

    batch: Batch
    result: BatchResult
    error: Optional[BaseException] = None
    """What ends the run after the outputs of the result."""


class ReorderBuffer:
    """
    Holds results until those before them are there. How many that can be is bounded by the
    executor, which does not run further ahead than its window.
    """

    def __init__(self, next_position: int = 0) -> None:
        self.next_position = next_position
        self._waiting: Dict[int, CompletedBatch] = {}

    def add(self, run: CompletedBatch) -> Iterator[CompletedBatch]:
        """Takes the result of a batch; yields what is next, in order."""
        positions = run.batch.positions
        if are_consecutive(positions):
            self._waiting[positions[0]] = run
        else:
            for single in singles(run):
                self._waiting[single.batch.positions[0]] = single
        while self.next_position in self._waiting:
            ready = self._waiting.pop(self.next_position)
            self.next_position = ready.batch.positions[-1] + 1
            yield ready


def singles(run: CompletedBatch) -> Iterator[CompletedBatch]:
    """The same, input by input."""
    batch, result, error = run
    failures = {failure.offset: failure for failure in result.failures}
    for offset in range(len(batch.values)):
        is_there = offset < len(result.outputs)
        description = result.descriptions[offset] if result.descriptions and is_there else None
        printed = (result.printed or {}).get(offset)
        failure = failures.get(offset)
        yield CompletedBatch(
            batch.only(offset),
            BatchResult(
                result.number,
                outputs=result.outputs[offset : offset + 1],
                descriptions=[description] if result.descriptions else None,
                printed={0: printed} if printed else None,
                failures=[failure._replace(offset=0)] if failure else [],
            ),
            None if is_there or failure else error,
        )
