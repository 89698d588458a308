"""Where results go: the output file, the console, and a file of errors."""

import io
import json
import locale
import logging
import os
import sys
from contextlib import contextmanager
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence

from allennlp_parallel_predict.common.errors import OutputClosed, shortened, shown
from allennlp_parallel_predict.common.messages import Failure, OnError
from allennlp_parallel_predict.common.recorder import in_stage
from allennlp_parallel_predict.common.stages import WRITING
from allennlp_parallel_predict.data.files import OutputFile, close_all, writing
from allennlp_parallel_predict.data.reorder_buffer import CompletedBatch

logger = logging.getLogger(__name__)

ENCODING = locale.getpreferredencoding(False)
"""Of output files, as of those that `open` opens for `allennlp predict`."""
_LONGEST_MESSAGE = 10_000
"""Characters of an exception's message or traceback that are written down."""


class OutputPosition(NamedTuple):
    """How far a sink has come, always after a whole batch."""

    lines: int = 0
    """The input lines that are dealt with, blank ones included."""
    positions: int = 0
    """The inputs that are dealt with."""
    predictions: int = 0
    """The predictions that were written: what the console counts."""
    failures: int = 0
    output_bytes: int = 0
    output_checksum: int = 0
    """The CRC-32 of these bytes."""
    errors_bytes: int = 0
    errors_checksum: int = 0
    inputs: int = 0
    """The input files that are finished, of several; `lines` and `positions` are of the next."""

    @property
    def results(self) -> int:
        """The predictions and the failures."""
        return self.predictions + self.failures


class Sink:
    """
    Writes results as `allennlp predict` does, and failures as the settings ask.

    # Parameters

    output : `OutputFile`, optional (default = `None`)
        The file for the predictions.
    errors : `OutputFile`, optional (default = `None`)
        The file for the failures, one JSON object a line; without one they are logged.
    print_to_console : `bool`, optional (default = `True`)
        Whether inputs and predictions are printed to stdout.
    on_error : `OnError`, optional (default = `"raise"`)
        See `Settings`.
    start : `OutputPosition`, optional (default = `OutputPosition()`)
        Where an interrupted run is to be continued, or a part of a whole begins.
    """

    def __init__(
        self,
        output: Optional[OutputFile] = None,
        errors: Optional[OutputFile] = None,
        *,
        print_to_console: bool = True,
        on_error: OnError = OnError.RAISE,
        start: OutputPosition = OutputPosition(),
    ) -> None:
        self.written = start
        self._print_to_console = print_to_console
        self._on_error = on_error
        self._output = output
        self._errors = errors
        self.is_divisible = output is None or output.is_divisible
        self._files: List[OutputFile] = [file for file in (output, errors) if file is not None]
        for file in self._files:
            file.begin()

    @in_stage(WRITING)
    def write(self, runs: Sequence[CompletedBatch]) -> None:
        """
        Writes what became of some consecutive inputs.

        # Raises

        `OSError`
            If the disk is full.
        `OutputClosed`
            If the reader of stdout is gone.
        """
        if self._print_to_console or any(r.result.failures or r.result.printed for r in runs):
            for run in runs:
                self._write_one_by_one(run)
                self._count([run])
        else:
            self._write_outputs([output for run in runs for output in run.result.outputs])
            self._count(runs)

    def _count(self, runs: Sequence[CompletedBatch]) -> None:
        """All of the position changes at once, so that no part of it is ahead of another."""
        output, errors, before = self._output, self._errors, self.written
        self.written = OutputPosition(
            max(before.lines, *(run.batch.line_numbers[-1] for run in runs)),
            before.positions + sum(len(run.batch.values) for run in runs),
            before.predictions + sum(map(_number_of_predictions, runs)),
            before.failures + sum(len(run.result.failures) for run in runs),
            *((output.size, output.checksum) if output is not None else (0, 0)),
            *((errors.size, errors.checksum) if errors is not None else (0, 0)),
            before.inputs,
        )

    def _write_outputs(self, outputs: List[Any]) -> None:
        if self._output is None:
            return
        try:
            data = "".join(outputs).encode(ENCODING)
        except (TypeError, UnicodeEncodeError):
            for output in outputs:  # up to what is no text, where `predict` ends
                self._output.write(_encode(output))
        else:
            self._output.write(data)

    def _write_one_by_one(self, run: CompletedBatch) -> None:
        result = run.result
        failures = {failure.offset: failure for failure in result.failures}
        printed = result.printed or {}
        index = self.written.predictions
        for offset in range(max([len(result.outputs) - 1, *failures, *printed]) + 1):
            with _printing():
                sys.stdout.write(printed.get(offset, ""))
            if offset in failures:
                self._write_failure(run, failures[offset])
            elif offset < len(result.outputs):
                description = result.descriptions[offset] if result.descriptions else None
                self._write_output(index, result.outputs[offset], description)
                index += 1

    def _write_output(self, index: int, output: Any, description: Optional[str]) -> None:
        if self._print_to_console:
            with _printing():
                if description is not None:
                    print(f"input {index}: ", description)
                print("prediction: ", output)
        self._write_outputs([output])

    def _write_failure(self, run: CompletedBatch, failure: Failure) -> None:
        line_number = run.batch.line_numbers[failure.offset]
        message = shortened(failure.error.message, _LONGEST_MESSAGE)
        what = {"type": failure.error.type_name, "message": message}
        if self._on_error == OnError.PLACEHOLDER:
            self._write_output(0, placeholder(line_number, **what), None)
        if self._errors is None:
            where = run.batch.line(failure.offset)
            logger.warning("%s failed: %s: %s", where, what["type"], shown(message))
        else:
            record = {
                **({"file": run.batch.input_file} if run.batch.input_file else {}),
                "line": line_number,
                "input": run.batch.text(failure.offset),
                **what,
                "traceback": shortened(failure.error.traceback, _LONGEST_MESSAGE),
            }
            self._errors.write(json.dumps(record).encode() + b"\n")

    def begin_input(self) -> None:
        """What comes now is from the next of several input files."""
        inputs = self.written.inputs + 1
        self.written = self.end_part()._replace(lines=0, positions=0, inputs=inputs)

    @in_stage(WRITING)
    def flush(self) -> None:
        """Hands everything to the operating system."""
        for file in self._files:
            file.flush()
        with _printing():
            sys.stdout.flush()

    @in_stage(WRITING)
    def sync(self) -> None:
        """Brings everything to the disk: all of `written` is there, and perhaps more."""
        self.flush()
        for file in self._files:
            file.sync()

    def end_part(self) -> OutputPosition:
        """Makes the files end where they can be cut off, and returns how far they are."""
        if self._output is not None and not self.is_divisible:
            self._output.end_part()
            size, checksum = self._output.size, self._output.checksum
            self.written = self.written._replace(output_bytes=size, output_checksum=checksum)
        return self.written

    @in_stage(WRITING)
    def close(self) -> None:
        try:
            self.end_part()
            self.flush()
        finally:
            close_all(self._files)


def placeholder(line: int, type: str, message: str) -> str:
    """What takes the place of the output of an input that failed."""
    return json.dumps({"error": {"line": line, "type": type, "message": message}}) + "\n"


@contextmanager
def _printing() -> Iterator[None]:
    try:
        with writing("to the standard output"):
            yield
    except (OSError, OutputClosed):
        # Python flushes it once more at the end, and that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _encode(output: Any) -> bytes:
    """The bytes of a text; for what is none, the error that `predict`'s file raises."""
    buffer = io.BytesIO()
    with io.TextIOWrapper(buffer, ENCODING, newline="") as file:
        file.write(output)
        file.flush()
        return buffer.getvalue()


def _number_of_predictions(run: CompletedBatch) -> int:
    failed = sum(failure.offset < len(run.result.outputs) for failure in run.result.failures)
    return len(run.result.outputs) - failed
