"""The inputs that failed in a complete run, and their places in its output."""

import hashlib
import json
from itertools import islice
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, TextIO

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


def read_failures(errors_file: str) -> Dict[int, FailedInput]:
    """
    The failures that an `--errors-file` lists, by line number.

    # Raises

    `ResumeError`
        If it is no such file.
    """
    failures: Dict[int, FailedInput] = {}
    with open(errors_file, "rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                record = json.loads(line)
                place = placeholder(record["line"], record["type"], record["message"])
                failures[record["line"]] = FailedInput(_hash(record["input"]), _hash(place))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise ResumeError(
                    f"{errors_file} is no file of errors: its line {number} is none that "
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


def has_placeholders(lines: TextIO, failures: Dict[int, FailedInput]) -> bool:
    """
    Whether each failure has its place in an output, or none has.

    # Raises

    `ResumeError`
        If only some have: the output and the errors are not of one run.
    """
    wanted = {failure.placeholder for failure in failures.values()}
    found = sum(line.startswith('{"error": ') and _hash(line) in wanted for line in lines)
    if found not in (0, len(failures)):
        raise ResumeError(
            f"the output has placeholders for {found} of the {len(failures)} inputs that failed: "
            "give the files of one run"
        )
    return found > 0


def merge(
    lines: TextIO,
    source: FailedSource,
    failures: Dict[int, FailedInput],
    results: Iterator[str],
    replaces: bool,
) -> Iterator[str]:
    """
    The output with the results of the inputs that failed: instead of their placeholders, if it
    `replaces` these, or else where they belong.

    # Raises

    `ResumeError`
        If it cannot be said where that is.
    """
    if replaces:
        wanted = {failure.placeholder for failure in failures.values()}
        for line in lines:
            is_place = line.startswith('{"error": ') and _hash(line) in wanted
            yield next(results) if is_place else line
        return
    written = 0
    for failed, place in enumerate(source.places):
        for line in islice(lines, place - failed - written):
            written += 1
            yield line
        yield next(results)
    for line in lines:
        written += 1
        yield line
    if written != source.inputs - len(source.places):
        raise ResumeError(
            f"it cannot be said where the results belong: the output has {written:,} lines for "
            f"{source.inputs - len(source.places):,} inputs that did not fail. Use --on-error "
            "placeholder for outputs of another number of lines than inputs"
        )


def _hash(text: Any) -> bytes:
    return hashlib.blake2b(text.encode("UTF-8", "surrogatepass"), digest_size=12).digest()
