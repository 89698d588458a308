"""Predicts identical inputs once: `--deduplicate`."""

from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional

from overrides import overrides

from allennlp_parallel_predict.common.errors import ModelStateError
from allennlp_parallel_predict.common.messages import Batch
from allennlp_parallel_predict.data.batching import Batching
from allennlp_parallel_predict.data.inputs import Input, in_windows
from allennlp_parallel_predict.data.reorder_buffer import CompletedBatch, singles

_WINDOW = 2048
"""Inputs: as many as `bucket` batching sorts together."""


class DeduplicatedBatching(Batching):
    """
    Leaves out of the batches every line that was there before in the same window of the input, and
    gives it the result of the first.

    # Parameters

    batching : `Batching`
        How the others are grouped. No batch holds inputs of two windows.
    state_change : `Callable[[], Optional[str]]`
        What the model is known to keep from batch to batch. The result of a line depends on the
        lines before it then, so that copies cannot be left out.
    """

    def __init__(self, batching: Batching, state_change: Callable[[], Optional[str]]) -> None:
        super().__init__(batching.batch_size)
        self.window = max(_WINDOW, batching.span())
        self.left_out = 0
        """The lines that were not predicted again."""
        self._batching = batching
        self._state_change = state_change
        self._copies: Dict[int, List[Input]] = {}
        """By the position of the input that is predicted."""

    @overrides
    def groups(self, inputs: Iterable[Optional[Input]]) -> Iterator[Any]:
        for window in in_windows(inputs, self.window):
            yield from [None] if window is None else self._groups_of(window)

    def _groups_of(self, window: List[Input]) -> Iterator[Any]:
        firsts: Dict[Any, Input] = {}
        for item in window:
            # What is no line cannot be read, and is a failure with a reason of its own.
            key = item.value if type(item.value) is str else item.position
            first = firsts.setdefault(key, item)
            if first is not item:
                self._copies.setdefault(first.position, []).append(item)
                self.left_out += 1
        groups = [members for members, _ in self._batching.groups(list(firsts.values()))]
        for number, members in enumerate(groups, start=1):
            yield members, number == len(groups)

    @overrides
    def last_position(self, batch: Batch) -> int:
        copies = (self._copies.get(position, ()) for position in batch.positions)
        return max(super().last_position(batch), *(c.position for some in copies for c in some), -1)

    @overrides
    def with_copies(self, run: CompletedBatch) -> Iterator[CompletedBatch]:
        change = self._state_change()
        if change is not None and self.left_out:
            raise ModelStateError.of(
                change,
                "so that identical inputs have different results: run it without --deduplicate",
            )
        yield run
        for single in singles(run) if self._copies.keys() & set(run.batch.positions) else ():
            for copy in self._copies.pop(single.batch.positions[0], ()):
                batch = single.batch._replace(
                    positions=[copy.position], line_numbers=[copy.line_number]
                )
                yield single._replace(batch=batch)

    @overrides
    def span(self) -> int:
        return self.window

    @overrides
    def describe(self) -> str:
        return f"{self.left_out:,} identical to others and not predicted again"
