"""The inputs that failed in a complete run, and their places in its output."""

import hashlib
import json
from itertools import islice
from typing import Any, BinaryIO, Dict, Iterator, List, NamedTuple, Optional, Set, TextIO, Tuple

from overrides import overrides

from allennlp_parallel_predict.common.errors import ResumeError
from allennlp_parallel_predict.common.messages import Batch
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.data.sinks import placeholder
from allennlp_parallel_predict.data.sources import Source


class FailedInput(NamedTuple):
    """What has to be known of it, in few bytes: there may be very many."""

    text: bytes
    """A hash of the input."""
    placeholder: bytes
    """A hash of the line that is in its place in the output, if there is one."""


def read_failures(file: BinaryIO) -> Dict[int, FailedInput]:
    """
    The failures that an `--errors-file` lists, by line number. The file stays open.

    # Raises

    `ResumeError`
        If it is no such file.
    """
    failures: Dict[int, FailedInput] = {}
    for number, line in enumerate(file, start=1):
        try:
            record = json.loads(line)
            place = placeholder(record["line"], record["type"], record["message"])
            failures[record["line"]] = FailedInput(_hash(record["input"]), _hash(place))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ResumeError(
                f"{file.name} is no file of errors: its line {number} is none that "
                "--errors-file writes"
            )
    return failures


class FailedSource(Source):
    """
    The inputs of a source that failed. They are numbered among themselves.

    # Parameters

    source : `Source`
        All inputs, from a file.
    failures : `Dict[int, FailedInput]`
        Those that failed, by line number.
    """

    def __init__(self, source: Source, failures: Dict[int, FailedInput]) -> None:
        self.kind = source.kind
        self.encoding = source.encoding
        self._source = source
        self._failures = failures
        self.places: List[int] = []
        """Their positions among all inputs, as far as they have been read."""
        self.inputs = 0
        """The number of all inputs, as far as they have been read."""

    @overrides
    def __iter__(self) -> Iterator[Optional[Input]]:
        for item in self._source:
            assert item is not None, "a file is there as a whole"
            self.inputs = item.position + 1
            failure = self._failures.get(item.line_number)
            if failure is None:
                continue
            batch = Batch(0, self.kind, [item.value], [0], [item.line_number])
            if _hash(batch.text(0)) != failure.text:
                raise ResumeError(
                    f"input line {item.line_number} is not what failed: give the input file of "
                    "the run that the errors are of"
                )
            self.places.append(item.position)
            yield item._replace(position=len(self.places) - 1)
        if len(self.places) != len(self._failures):
            last = max(self._failures)
            raise ResumeError(
                f"not every input that failed is in the input file (the last is line {last}): give "
                "that of the run that the errors are of"
            )

    @overrides
    def total(self) -> Optional[int]:
        return len(self._failures)


def count_lines(lines: TextIO, failures: Dict[int, FailedInput]) -> Tuple[int, int]:
    """
    How many lines an output has, and how many of them are placeholders for these failures.

    # Raises

    `ResumeError`
        If only some failures have one: the output and the errors are not of one run.
    """
    wanted = {failure.placeholder for failure in failures.values()}
    count = found = 0
    for count, line in enumerate(lines, start=1):
        found += _is_one_of(wanted, line)
    if found not in (0, len(failures)):
        raise ResumeError(
            f"the output has placeholders for {found} of the {len(failures)} inputs that failed: "
            "give the files of one run"
        )
    return count, found


def merge(
    lines: TextIO,
    places: List[int],
    failures: Dict[int, FailedInput],
    results: Iterator[str],
    replaces: bool,
) -> Iterator[str]:
    """
    The output with the results of the inputs that failed: instead of their placeholders, if it
    `replaces` these, or else at their places among inputs of which each has one line.
    """
    if replaces:
        wanted = {failure.placeholder for failure in failures.values()}
        for line in lines:
            yield next(results) if _is_one_of(wanted, line) else line
        return
    written = 0
    for failed, place in enumerate(places):
        yield from islice(lines, place - failed - written)
        written = place - failed
        yield next(results)
    yield from lines


def _is_one_of(placeholders: Set[bytes], line: str) -> bool:
    return line.startswith('{"error": ') and _hash(line) in placeholders


def _hash(text: Any) -> bytes:
    return hashlib.blake2b(text.encode("UTF-8", "surrogatepass"), digest_size=12).digest()
