"""
Groups inputs into batches.

A batch is what a worker predicts at once. Its grouping is visible in the output of some models
(padding changes the last digits, outputs that are not per instance are dropped), so the default,
`in_order`, makes exactly the groups that `allennlp predict` makes.
"""

from functools import partial
from typing import Any, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from allennlp.common import Registrable

from allennlp_parallel_predict.errors import SettingsError

LINES = "lines"
"""Raw lines in, text out: what the command does."""
INSTANCES = "instances"
"""`Instance`s from a dataset reader in, text out: `--use-dataset-reader`."""
JSON = "json"
"""Dictionaries in, dictionaries out: the Python interface."""
WHOLE_JSON, WHOLE_INSTANCES = "whole_json", "whole_instances"
"""The list of one call of `predict_batch_json` or `predict_batch_instance`: a batch even of one."""


class Input(NamedTuple):
    """One input, numbered."""

    position: int
    """Its place among the inputs, from 0; blank lines have none."""
    line_number: int
    """Its line in the input file, from 1."""
    value: Any
    """A raw line, an `Instance`, or a JSON dictionary."""


class Block(NamedTuple):
    """Consecutive inputs, by columns."""

    values: List[Any]
    positions: Sequence[int]
    line_numbers: Sequence[int]


def in_blocks(inputs: Iterable[Optional[Input]], size: int) -> Iterator[Optional[Block]]:
    """The inputs, `size` at a time, and the `None`s that are between them."""
    rows: List[Input] = []
    for item in inputs:
        if item is None:
            yield None
            continue
        rows.append(item)
        if len(rows) == size:
            yield _block(rows)
            rows = []
    if rows:
        yield _block(rows)


def _block(rows: List[Input]) -> Block:
    positions, line_numbers, values = map(list, zip(*rows))
    return Block(values, positions, line_numbers)


class Batch(NamedTuple):
    """What a worker predicts at once."""

    number: int
    kind: str
    values: List[Any]
    positions: Sequence[int]
    line_numbers: Sequence[int]
    ends_window: bool = True
    """No later batch holds an input from before the end of this one: a run may resume here."""

    def to_message(self) -> Tuple[int, str, List[Any], Optional[int]]:
        """What a worker has to know; of the positions only the first, if the others follow it."""
        first = self.positions[0] if are_consecutive(self.positions) else None
        return self.number, self.kind, self.values, first

    @classmethod
    def of_message(cls, number: int, kind: str, values: List[Any], first: Optional[int]) -> "Batch":
        """What a worker knows of a batch."""
        positions = () if first is None else range(first, first + len(values))
        return cls(number, kind, values, positions, ())

    def only(self, offset: int) -> "Batch":
        """The batch of the one input at `offset`."""
        return self._replace(
            values=[self.values[offset]],
            positions=[self.positions[offset]],
            line_numbers=[self.line_numbers[offset]],
        )

    def text(self, offset: int) -> str:
        """The input at `offset` for an error message; an instance has no short form."""
        value = self.values[offset]
        return value.rstrip("\r\n") if isinstance(value, str) else f"({type(value).__name__})"

    def describe(self) -> str:
        lines = sorted(self.line_numbers)
        noun = "input line" if self.kind in (LINES, INSTANCES) else "input"
        if len(lines) == 1:
            return f"{noun} {lines[0]}"
        among = "" if lines[-1] - lines[0] < 2 * len(lines) else f"{len(lines)} of "
        return f"{among}{noun}s {lines[0]}-{lines[-1]}"


def are_consecutive(positions: Sequence[int]) -> bool:
    """Whether there are any, and each but the first is one more than the one before."""
    if isinstance(positions, range):
        return len(positions) > 0 and positions.step == 1
    return len(positions) > 0 and list(positions) == list(
        range(positions[0], positions[0] + len(positions))
    )


class Batching(Registrable):
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
        if batch_size < 1:
            raise SettingsError(f"batching.batch_size must be at least 1, but it is {batch_size}")
        self.batch_size = batch_size

    def batches(self, inputs: Iterable[Optional[Input]], kind: str) -> Iterator[Optional[Batch]]:
        """
        Yields batches, and passes on the `None`s by which a source says that nothing is there yet.
        """
        number = 0
        for group in self.groups(inputs):
            if group is None:
                yield None
                continue
            members, ends_window = group
            block = members if isinstance(members, Block) else _block(members)
            yield Batch(number, kind, *block, ends_window)
            number += 1

    def groups(self, inputs: Iterable[Optional[Input]]) -> Iterator[Any]:
        """
        Yields `(inputs of a batch, whether it ends a window)` or `None`; every input once, and
        none later than after a bounded number of others. The inputs are a list or a `Block`.
        """
        raise NotImplementedError

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

    batch_size : `int`, optional (default = `32`)
        The number of inputs in a batch.
    window : `int`, optional (default = `2048`)
        The number of inputs that are sorted together; it bounds the memory.
    length : `str`, optional (default = `"characters"`)
        What the length of an input line is: its `"characters"` or its whitespace `"tokens"`.
    """

    exact = False
    # A class's attribute until the first input comes: the instance's are the settings.
    _padding: Optional["Padding"] = None

    def __init__(
        self, batch_size: int = 32, window: int = 2048, length: str = "characters"
    ) -> None:
        super().__init__(batch_size)
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

    def groups(self, inputs: Iterable[Optional[Input]]) -> Iterator[Any]:
        self._padding = padding = Padding()
        window: List[Input] = []
        for item in inputs:
            if item is None:
                yield None
                continue
            window.append(item)
            if len(window) == self.window:
                yield from self._sorted_groups(window, padding)
                window = []
        yield from self._sorted_groups(window, padding)

    def span(self) -> int:
        return self.window

    def describe(self) -> str:
        saved = self._padding.saved() if self._padding is not None else None
        return "" if saved is None else f"{saved:.0%} of the padding saved"

    def _sorted_groups(self, window: List[Input], padding: "Padding") -> Iterator[Any]:
        measured = [(_length(item.value, self.length), item) for item in window]
        padding.add_plain([length for length, _ in measured], self.batch_size)
        # The longest first: the last batches of a run are then short ones, and no worker is left
        # alone with a long one.
        measured.sort(key=lambda pair: pair[0], reverse=True)
        for start in range(0, len(measured), self.batch_size):
            group = measured[start : start + self.batch_size]
            padding.add_sorted([length for length, _ in group])
            yield [item for _, item in group], start + self.batch_size >= len(measured)


class Padding:
    """Adds up how much of the batches is padding: as they are, and as `in_order` makes them."""

    def __init__(self) -> None:
        self._filled = self._plain = self._sorted = 0

    def add_plain(self, lengths: List[int], batch_size: int) -> None:
        """Counts inputs in their own order."""
        for start in range(0, len(lengths), batch_size):
            group = lengths[start : start + batch_size]
            self._filled += sum(group)
            self._plain += max(group) * len(group)

    def add_sorted(self, lengths: List[int]) -> None:
        """Counts a batch as it is."""
        self._sorted += max(lengths) * len(lengths)

    def saved(self) -> Optional[float]:
        """The fraction of the padding that sorting has saved; `None` if there was none to save."""
        plain = self._plain - self._filled
        return 1 - (self._sorted - self._filled) / plain if plain > 0 else None


_LENGTHS = ("characters", "tokens")


def _length(value: Any, unit: str) -> int:
    """A length that costs nothing to know and is close to the model's."""
    if isinstance(value, dict):
        value = " ".join(text for text in value.values() if isinstance(text, str))
    if isinstance(value, str):
        return len(value) if unit == "characters" else len(value.split())
    fields = getattr(value, "fields", None)
    if fields is None:
        return len(str(value))
    return max((len(field) for field in fields.values() if hasattr(field, "__len__")), default=0)
