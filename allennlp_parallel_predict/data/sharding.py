"""Contiguous parts of an input, for job arrays."""

import re
from itertools import islice
from typing import NamedTuple

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data.sources import Source


class Shard(NamedTuple):
    """
    One of the contiguous parts of an input, of about the same size, that are predicted by runs of
    their own. Their outputs, one after the other, are the output of a run over the whole.
    """

    number: int
    """From 1."""
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """
        `"3/16"` is the third of sixteen.

        # Raises

        `SettingsError`
            If it is not a shard.
        """
        match = re.fullmatch(r"0*(\d+)/0*(\d+)", text)
        shard = cls(*map(int, match.groups())) if match else cls(0, 0)
        if not 1 <= shard.number <= shard.of:
            raise SettingsError(
                f"--shard must be K/N with K from 1 to N, such as 3/16, but it is {text!r}"
            )
        return shard

    def bounds(self, source: Source, span: int) -> "Bounds":
        """
        Where the shard lies in a source, which is read for it unless it is indexed.

        # Parameters

        source : `Source`
            The whole input.
        span : `int`
            The number of inputs that the shards must not be cut within: see `Batching.span`.
        """
        total = (source.total() or 0) if source.is_indexed else sum(1 for _ in source)
        spans = -(-total // span)
        start = min(total, spans * (self.number - 1) // self.of * span)
        end = min(total, spans * self.number // self.of * span)
        if source.is_indexed:
            return Bounds(start, start, end)
        last_before = next(islice(source, start - 1, None)) if start else None
        return Bounds(last_before.line_number if last_before else 0, start, end)


class Bounds(NamedTuple):
    """Where a shard lies."""

    lines: int
    """The lines before it, as far as inputs end there."""
    start: int
    """The position of its first input."""
    end: int
    """The position after its last input."""
