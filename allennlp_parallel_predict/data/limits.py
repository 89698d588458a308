"""The first inputs of a source."""

from typing import Iterator, Optional

from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.data.sources import Source


class LimitedSource(Source):
    """
    The inputs of a source up to a position, for `--limit` and `--shard`. It does not wait for an
    input after the last one.

    # Parameters

    source : `Source`
        The inputs, from wherever the run starts.
    end : `int`
        The position after the last input.
    """

    def __init__(self, source: Source, end: int) -> None:
        self.kind = source.kind
        self.encoding = source.encoding
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
