"""Where results go: the output file, the console, and a file of errors."""

import json
import logging
import os
import sys
from contextlib import contextmanager
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence

from allennlp_parallel_predict.common.errors import ResumeError, explain
from allennlp_parallel_predict.common.messages import Failure, OnError
from allennlp_parallel_predict.common.recorder import in_stage
from allennlp_parallel_predict.common.stages import WRITING
from allennlp_parallel_predict.data.reorder_buffer import CompletedBatch

logger = logging.getLogger(__name__)


class OutputClosed(Exception):
    """Nobody reads the output any more, as after `| head`."""


class OutputPosition(NamedTuple):
    """How far a sink has come."""

    lines: int = 0
    """The input lines that are dealt with, blank ones included."""
    positions: int = 0
    """The inputs that are dealt with."""
    predictions: int = 0
    """The predictions that were written: what the console counts."""
    failures: int = 0
    output_bytes: int = 0
    errors_bytes: int = 0


class Sink:
    """
    Writes results as `allennlp predict` does, and failures as the settings ask.

    # Parameters

    output_file : `str`, optional (default = `None`)
        The file for the predictions.
    errors_file : `str`, optional (default = `None`)
        The file for the failures, one JSON object a line; without one they are logged.
    print_to_console : `bool`, optional (default = `True`)
        Whether inputs and predictions are printed to stdout.
    on_error : `OnError`, optional (default = `"raise"`)
        See `Settings`.
    resume_at : `OutputPosition`, optional (default = `None`)
        How far an interrupted run came whose files are to be continued.
    """

    def __init__(
        self,
        output_file: Optional[str] = None,
        errors_file: Optional[str] = None,
        print_to_console: bool = True,
        on_error: OnError = OnError.RAISE,
        resume_at: Optional[OutputPosition] = None,
    ) -> None:
        self.written = resume_at or OutputPosition()
        self._print_to_console = print_to_console
        self._on_error = on_error
        self._output = _open(output_file, resume_at and resume_at.output_bytes)
        self._errors = _open(errors_file, resume_at and resume_at.errors_bytes)

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
            if self._output is not None:
                self._write_outputs([output for run in runs for output in run.result.outputs])
            self._count(runs)

    def _count(self, runs: Sequence[CompletedBatch]) -> None:
        lines, positions, predictions, failed, *sizes = self.written
        self.written = OutputPosition(
            max(lines, *(run.batch.line_numbers[-1] for run in runs)),
            positions + sum(len(run.batch.values) for run in runs),
            predictions + sum(map(_number_of_predictions, runs)),
            failed + sum(len(run.result.failures) for run in runs),
            *sizes,
        )

    def _write_outputs(self, outputs: List[Any]) -> None:
        assert self._output is not None
        with _writing(self._output):
            try:
                self._output.write("".join(outputs))
            except TypeError:
                self._output.writelines(outputs)  # up to what is no text, where `predict` ends

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
        if self._output is not None:
            with _writing(self._output):
                self._output.write(output)

    def _write_failure(self, run: CompletedBatch, failure: Failure) -> None:
        line_number = run.batch.line_numbers[failure.offset]
        what = {"type": failure.error.type_name, "message": failure.error.message}
        if self._on_error == OnError.PLACEHOLDER:
            placeholder = json.dumps({"error": {"line": line_number, **what}}) + "\n"
            self._write_output(0, placeholder, None)
        if self._errors is None:
            logger.warning("input line %d failed: %s: %s", line_number, *what.values())
        else:
            record = {
                "line": line_number,
                "input": run.batch.text(failure.offset),
                **what,
                "traceback": failure.error.traceback,
            }
            with _writing(self._errors):
                self._errors.write(json.dumps(record) + "\n")

    @in_stage(WRITING)
    def flush(self) -> None:
        """Hands everything to the operating system."""
        for file in self._files():
            with _writing(file):
                file.flush()
        with _printing():
            sys.stdout.flush()

    @in_stage(WRITING)
    def sync(self) -> OutputPosition:
        """Brings everything to the disk and says how far it is."""
        self.flush()
        sizes = {}
        for file in self._files():
            if file.seekable():
                with _writing(file):
                    os.fsync(file.fileno())
                sizes[file] = file.buffer.tell()
        self.written = self.written._replace(
            output_bytes=sizes.get(self._output, 0), errors_bytes=sizes.get(self._errors, 0)
        )
        return self.written

    @in_stage(WRITING)
    def close(self) -> None:
        try:
            self.flush()
        finally:
            for file in self._files():
                with _writing(file):
                    file.close()

    def _files(self) -> List[Any]:
        return [file for file in (self._output, self._errors) if file is not None]


@contextmanager
def _writing(file: Any) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as error:
        raise OutputClosed() from error
    except OSError as error:
        name = "to the standard output" if file is sys.stdout else file.name
        raise explain(error, f"cannot write {name}: {error.strerror}")


@contextmanager
def _printing() -> Iterator[None]:
    try:
        with _writing(sys.stdout):
            yield
    except (OSError, OutputClosed):
        # Python flushes it once more at the end, and that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


def _number_of_predictions(run: CompletedBatch) -> int:
    failed = sum(failure.offset < len(run.result.outputs) for failure in run.result.failures)
    return len(run.result.outputs) - failed


def _open(path: Optional[str], size: Optional[int]) -> Optional[Any]:
    if path is None:
        return None
    if size is None:
        return open(path, "w")
    if not os.path.isfile(path) or os.path.getsize(path) < size:
        raise ResumeError(f"{path} has changed since the checkpoint was written")
    file = open(path, "r+")
    file.truncate(size)
    file.seek(0, os.SEEK_END)
    return file
