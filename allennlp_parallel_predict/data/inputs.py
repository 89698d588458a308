"""Inputs as a source yields them: numbered, one by one or in blocks."""

from typing import Any, Iterable, Iterator, List, NamedTuple, Optional, Sequence


class Input(NamedTuple):
    """One input, numbered."""

    position: int
    """Its place among the inputs, from 0; blank lines have none."""
    line_number: int
    """Its line in the input file, from 1."""
    value: Any
    """A raw line, an `Instance`, or a JSON dictionary."""


class InvalidInput(str):
    """The text of an input that cannot be read: the worker that gets it raises the error."""

    problem: str

    @classmethod
    def of(cls, text: str, problem: str) -> "InvalidInput":
        invalid = cls(text)
        invalid.problem = problem
        return invalid


class Block(NamedTuple):
    """Consecutive inputs, by columns."""

    values: List[Any]
    positions: Sequence[int]
    line_numbers: Sequence[int]


def in_windows(inputs: Iterable[Optional[Input]], size: int) -> Iterator[Optional[List[Input]]]:
    """The inputs, `size` at a time, and the `None`s that are between them."""
    window: List[Input] = []
    for item in inputs:
        if item is None:
            yield None
            continue
        window.append(item)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def in_blocks(inputs: Iterable[Optional[Input]], size: int) -> Iterator[Optional[Block]]:
    """The same by columns."""
    for window in in_windows(inputs, size):
        yield None if window is None else to_block(window)


def to_block(rows: List[Input]) -> Block:
    positions, line_numbers, values = map(list, zip(*rows))
    return Block(values, positions, line_numbers)
