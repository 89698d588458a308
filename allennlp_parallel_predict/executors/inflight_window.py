"""How far the workers may run ahead of the oldest batch that is not finished."""

import heapq
from typing import Dict, List, Tuple

from allennlp_parallel_predict.common.messages import Batch


class InflightWindow:
    """
    Results are written in input order, so those after an unfinished batch have to be held. The
    window is wide enough for the other workers to go on while one has a slow batch, and no wider.

    # Parameters

    max_batches : `int`
        The number of batches between the oldest unfinished one and the newest.
    max_bytes : `int`
        The size of the finished results that are held.
    """

    def __init__(self, max_batches: int, max_bytes: int) -> None:
        self._max_batches = max_batches
        self._max_bytes = max_bytes
        self.batches: Dict[int, Batch] = {}
        """The unfinished batches by number, oldest first."""
        self._ahead: List[Tuple[int, int]] = []  # a heap of (number, bytes)
        self._bytes_ahead = 0
        self._newest = -1

    def is_open(self, at_least: int = 0) -> bool:
        """Whether another batch may come in, `at_least` so many if they are not too large."""
        if not self.batches or self._bytes_ahead >= self._max_bytes:
            return not self.batches
        oldest = next(iter(self.batches))
        return bool(self._newest - oldest < max(self._max_batches, at_least))

    def enter(self, batch: Batch) -> None:
        self.batches[batch.number] = batch
        self._newest = batch.number

    def leave(self, number: int, size: int) -> None:
        """The batch is finished, with a result of `size` bytes."""
        del self.batches[number]
        oldest = next(iter(self.batches), self._newest + 1)
        if number > oldest:
            heapq.heappush(self._ahead, (number, size))
            self._bytes_ahead += size
        while self._ahead and self._ahead[0][0] < oldest:
            self._bytes_ahead -= heapq.heappop(self._ahead)[1]
