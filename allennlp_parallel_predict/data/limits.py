"""Parts of a source: its first inputs, and a sample."""

from itertools import islice
from typing import Iterator, List, Optional

from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.data.sources import Source

_SAMPLE = 2048
"""Inputs: as many as `bucket` batching sorts together."""
_LOOKED_AT = 1_000_000
"""The inputs at the beginning of a source that the sample is taken from."""


class LimitedSource(Source):
    """
    The inputs of a source before the position `end`, for `--limit` and `--shard`. It does not wait
    for an input after the last one.
    """

    def __init__(self, source: Source, end: int) -> None:
        self.kind = source.kind
        self.encoding = source.encoding
        self.is_indexed = source.is_indexed
        self._source = source
        self._end = end

    def __iter__(self) -> Iterator[Optional[Input]]:
        for item in self._source:
            if item is not None and item.position >= self._end:
                return
            yield item
            if item is not None and item.position == self._end - 1:
                return

    def fileno(self) -> Optional[int]:
        return self._source.fileno()

    def total(self) -> Optional[int]:
        found = self._source.total()
        return self._end if found is None else min(found, self._end)


def sample(source: Source, size: int = _SAMPLE) -> List[Input]:
    """Inputs from all over a source, in their order; the first is among them."""
    total = min(source.total() or size, _LOOKED_AT)
    step = max(1, total // size)
    there = (item for item in source if item is not None)
    return list(islice(islice(there, _LOOKED_AT), 0, step * size, step))
