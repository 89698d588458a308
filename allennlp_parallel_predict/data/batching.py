"""
Groups inputs into batches.

A batch is what a worker predicts at once. Its grouping is visible in the output of some models
(padding changes the last digits, outputs that are not per instance are dropped), so the default,
`in_order`, makes exactly the groups that `allennlp predict` makes.
"""

from functools import partial
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

from allennlp_parallel_predict.common.configurable import Configurable
from allennlp_parallel_predict.common.errors import SettingsError, check_at_least
from allennlp_parallel_predict.common.messages import Batch, BatchKind
from allennlp_parallel_predict.data.inputs import Block, Input, in_blocks, in_windows, to_block
from allennlp_parallel_predict.data.lazy_instances import DeferredCall
from allennlp_parallel_predict.data.reorder_buffer import CompletedBatch


class Batching(Configurable):
    """
    The base class of the ways to group inputs. Subclasses implement `groups`.

    # Parameters

    batch_size : `int`, optional (default = `1`)
        The number of inputs in a batch, as in `allennlp predict --batch-size`.
    """

    default_implementation = "in_order"
    exact = True
    """Whether the groups are those of `allennlp predict`, so that the last digits can be too."""

    def __init__(self, batch_size: int = 1) -> None:
        check_at_least(1, "batching.", batch_size=batch_size)
        self.batch_size = batch_size

    def batches(
        self,
        inputs: Iterable[Optional[Input]],
        kind: BatchKind,
        number: int = 0,
        input_file: Optional[str] = None,
    ) -> Iterator[Optional[Batch]]:
        """
        Yields batches, and passes on the `None`s by which a source says that nothing is there yet.

        # Parameters

        inputs : `Iterable[Optional[Input]]`
            The inputs, such as a source.
        kind : `BatchKind`
            What they are.
        number : `int`, optional (default = `0`)
            That of the first batch.
        input_file : `str`, optional (default = `None`)
            Where the inputs are from, if there are several files.
        """
        for group in self.groups(inputs):
            if group is None:
                yield None
                continue
            members, ends_window = group
            block = members if isinstance(members, Block) else to_block(members)
            yield Batch(number, kind, *block, ends_window, input_file)
            number += 1

    def groups(self, inputs: Iterable[Optional[Input]]) -> Iterator[Any]:
        """
        Yields `(inputs of a batch, whether it ends a window)` or `None`; every input once, and
        none later than after a bounded number of others. The inputs are a list or a `Block`.
        """
        raise NotImplementedError

    def last_position(self, batch: Batch) -> int:
        """Of the inputs that the result of a batch is for."""
        return max(batch.positions)

    def with_copies(self, run: CompletedBatch) -> Iterator[CompletedBatch]:
        """The result of a batch, and those of inputs that are in no batch because of it."""
        yield run

    def span(self) -> int:
        """The number of inputs after which grouping starts anew: `--shard` may cut there."""
        return self.batch_size

    def describe(self) -> str:
        """What the grouping has brought, for the line at the end of a run; `""` if nothing."""
        return ""


@Batching.register("in_order")
class InOrderBatching(Batching):
    """The groups that `allennlp predict` makes: consecutive inputs, `batch_size` at a time."""

    def groups(self, inputs: Iterable[Optional[Input]]) -> Iterator[Any]:
        # A source may have a faster way than input by input.
        blocks = getattr(inputs, "blocks", partial(in_blocks, inputs))
        for block in blocks(self.batch_size):
            yield None if block is None else (block, True)


@Batching.register("bucket")
class BucketBatching(Batching):
    """
    Sorts the inputs of a window by length, so that a batch holds inputs of like length and little
    of it is padding. Results still come out in input order. It changes the last digits of floats.

    # Parameters

    batch_size : `int`, optional (default = `None`)
        The number of inputs in a batch, which is 32 unless there are `max_tokens`; then it is the
        most inputs in a batch.
    window : `int`, optional (default = `2048`)
        The number of inputs that are sorted together; it bounds the memory.
    length : `str`, optional (default = `"characters"`)
        What the length of an input line is: its `"characters"` or its whitespace `"tokens"`.
        With `--use-dataset-reader` it is the bytes of the pickled arguments of `text_to_instance`;
        of an instance that could only be made in the parent, the tokens of its longest field.
    max_tokens : `int`, optional (default = `None`)
        Fills batches as long as the number of inputs times the longest of them is at most this, in
        the unit of `length`. A longer input is a batch by itself.
    """

    exact = False

    def __init__(
        self,
        batch_size: Optional[int] = None,
        window: int = 2048,
        length: str = "characters",
        max_tokens: Optional[int] = None,
    ) -> None:
        if batch_size is None:
            batch_size = 32 if max_tokens is None else window
        super().__init__(batch_size)
        check_at_least(1, "batching.", max_tokens=max_tokens)
        if window < batch_size:
            raise SettingsError(
                f"batching.window must be at least batching.batch_size ({batch_size}), "
                f"but it is {window}"
            )
        if length not in _LENGTHS:
            raise SettingsError(
                f"batching.length must be one of {', '.join(_LENGTHS)}, but it is {length!r}"
            )
        self.window = window
        self.length = length
        self.max_tokens = max_tokens
        self._plain = self._in_buckets = 0
        """The padding in batches of inputs in their own order, and as they are."""

    def groups(self, inputs: Iterable[Optional[Input]]) -> Iterator[Any]:
        self._plain = self._in_buckets = 0
        for window in in_windows(inputs, self.window):
            yield from [None] if window is None else self._sorted_groups(window)

    def span(self) -> int:
        return self.window

    def settings(self) -> Dict[str, Any]:
        return {**super().settings(), "batch_size": self.batch_size}

    def describe(self) -> str:
        saved = self._plain - self._in_buckets
        return f"{saved / self._plain:.0%} of the padding saved" if self._plain else ""

    def _sorted_groups(self, window: List[Input]) -> Iterator[Any]:
        measured = [(_length(item.value, self.length), item) for item in window]
        plain = [length for length, _ in measured]
        # The longest first: the last batches of a run are then short ones, and no worker is left
        # alone with a long one.
        measured.sort(key=lambda pair: pair[0], reverse=True)
        lengths = [length for length, _ in measured]
        self._plain += self._padding(plain)
        self._in_buckets += self._padding(lengths)
        for start, end in self._cuts(lengths):
            yield [item for _, item in measured[start:end]], end == len(measured)

    def _padding(self, lengths: List[int]) -> int:
        padded = (max(lengths[at:end]) * (end - at) for at, end in self._cuts(lengths))
        return sum(padded) - sum(lengths)

    def _cuts(self, lengths: List[int]) -> Iterator[Tuple[int, int]]:
        """Where batches of inputs of these lengths, in this order, start and end."""
        start = longest = 0
        for at, length in enumerate(lengths):
            longest = max(longest, length, 1)
            is_over = self.max_tokens is not None and (at + 1 - start) * longest > self.max_tokens
            if at > start and (is_over or at - start == self.batch_size):
                yield start, at
                start, longest = at, max(length, 1)
        if lengths:
            yield start, len(lengths)


_LENGTHS = ("characters", "tokens")


def _length(value: Any, unit: str) -> int:
    """A length that costs nothing to know and is close to the model's."""
    if isinstance(value, dict):
        value = " ".join(text for text in value.values() if isinstance(text, str))
    if isinstance(value, str):
        return len(value) if unit == "characters" else len(value.split())
    if isinstance(value, DeferredCall):
        return len(value.pickled)
    fields = getattr(value, "fields", None)
    if fields is None:
        return len(str(value))
    return max((len(field) for field in fields.values() if hasattr(field, "__len__")), default=0)
