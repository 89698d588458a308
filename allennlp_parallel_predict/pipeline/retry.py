"""Predicts what failed in a complete run again, and puts the results in their places: `--retry`."""

import collections
import contextlib
import gzip
import os
import shutil
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, TextIO, Tuple

from allennlp.predictors import Predictor
from overrides import overrides

from allennlp_parallel_predict.accelerate.fast_json import is_default_dump_line
from allennlp_parallel_predict.common.errors import (
    ModelStateError,
    ResumeError,
    user_error_context,
)
from allennlp_parallel_predict.common.messages import OnError
from allennlp_parallel_predict.data.compression import READ_ERRORS, open_zstd
from allennlp_parallel_predict.data.failures import (
    FailedInput,
    FailedSource,
    count_lines,
    merge,
    read_failures,
)
from allennlp_parallel_predict.data.files import OutputFile, sync_folder
from allennlp_parallel_predict.data.formats import LINES, open_source, table_by_name
from allennlp_parallel_predict.data.limits import LimitedSource
from allennlp_parallel_predict.data.output_formats import GZ, ZST, output_format
from allennlp_parallel_predict.data.reorder_buffer import CompletedBatch, singles
from allennlp_parallel_predict.data.sinks import OutputPosition, Sink
from allennlp_parallel_predict.data.sources import Source
from allennlp_parallel_predict.models.state import InputCounters
from allennlp_parallel_predict.pipeline.checkpoint import Checkpoint
from allennlp_parallel_predict.pipeline.config import RunConfig
from allennlp_parallel_predict.pipeline.run import PredictRun, tell
from allennlp_parallel_predict.pipeline.run_output import RunOutput
from allennlp_parallel_predict.settings import Settings

_USE_PLACEHOLDER = "Use --on-error placeholder for such outputs"


class RetryRun(PredictRun):
    """
    Nothing is changed before all is predicted: the new output and the new list of errors are
    written beside the old ones, and then take their places, the output first. `ERRORS.retry`
    without `OUTPUT.retry` says that a crash came between the two.
    """

    @overrides
    def _output(self, config: RunConfig) -> RunOutput:
        return _RetryOutput(config, self._settings)

    @overrides
    def _run(self, outputs: List[RunOutput]) -> int:
        (output,) = outputs
        assert isinstance(output, _RetryOutput)
        try:
            failures = super()._run(outputs)
            change = self._settings.executor.state_change
            if change is not None:
                raise ModelStateError.of(
                    change,
                    "so that single inputs cannot be predicted again: start the whole run again",
                )
            output.write_merged()
        except BaseException:
            output.remove_temporary()
            raise
        output.take_places()
        return failures


class _RetryOutput(RunOutput):
    """The output of the run whose failures are predicted again, and the list of these."""

    _failures: Dict[int, FailedInput]
    _places: Optional[List[int]] = None
    """The positions of the failures among all inputs, when they have been looked for."""
    _results_sink: "_ResultSink"

    def __init__(self, config: RunConfig, settings: Settings) -> None:
        super().__init__(config, settings)
        # All are closed at the end: closing a file, also one that was only read, gives its lock up.
        self._held = contextlib.ExitStack()

    @overrides
    def close(self) -> None:
        with self._held:
            super().close()

    @overrides
    def is_complete(self) -> bool:
        config = self.config
        self._held.callback(OutputFile(self._errors_path).close)
        Checkpoint(self._path, config.identity(self._settings)).protect(self._path)
        self._end_interrupted()
        self._failures = read_failures(self._held.enter_context(open(self._errors_path, "rb")))
        if not self._failures:
            return True
        with user_error_context("cannot read the output file", *READ_ERRORS):
            self._lines, found = count_lines(self._old_output(), self._failures)
        self._replaces = found > 0
        written_with = OnError.PLACEHOLDER if self._replaces else OnError.SKIP
        if self._settings.on_error not in (OnError.RAISE, written_with):
            raise ResumeError(f"the output was written with --on-error {written_with}: give that")
        table = config.input_format or table_by_name(config.input_file)
        if not config.use_dataset_reader and (config.input_format or table == LINES):
            # Otherwise the predictor has to be asked how the input is read.
            self._find(open_source(config.input_file, config.format(table)))
        return False

    def _find(self, source: Source) -> None:
        """Checks that the failures are inputs, and that their places in the output are known."""
        limit = self.config.limit
        failed = FailedSource(LimitedSource(source, limit) if limit else source, self._failures)
        collections.deque(failed, maxlen=0)
        self._places, others = failed.places, failed.inputs - len(failed.places)
        if not self._replaces and self._lines != others:
            raise ResumeError(
                f"it cannot be said where the results belong: the output has {self._lines:,} lines "
                f"for {others:,} inputs that did not fail. {_USE_PLACEHOLDER}"
            )

    @property
    def _path(self) -> str:
        return os.path.realpath(str(self.config.output_file))  # a link stays one

    @property
    def _errors_path(self) -> str:
        return os.path.realpath(str(self.config.retry))

    def _old_output(self) -> TextIO:
        format = output_format(self.config.output_format, self.config.output_file)
        openers: Dict[str, Callable[..., Any]] = {GZ: gzip.open, ZST: open_zstd}
        file: TextIO = self._held.enter_context(
            openers.get(format, open)(
                self._path, mode="rt", encoding="UTF-8", errors="surrogateescape", newline="\n"
            )
        )
        return file

    def _end_interrupted(self) -> None:
        """Does what an interrupted retry has left to do, or removes what it has left."""
        new, errors = f"{self._path}.retry", f"{self._errors_path}.retry"
        if not os.path.exists(new) and os.path.exists(errors):
            # Unless another run has written the output since.
            if os.stat(self._path).st_mtime_ns <= os.stat(errors).st_mtime_ns:
                tell(f"ending the retry that was interrupted: {errors} becomes {self._errors_path}")
                _replace(errors, self._errors_path)
        self.remove_temporary()

    def remove_temporary(self) -> None:
        """Removes what this run, or an earlier one, has left beside its files."""
        # In this order, and each for good before the next: see the class.
        for path in (f"{self._errors_path}.retry", f"{self._path}.retry", *self._working_files()):
            if os.path.exists(path):
                os.unlink(path)
                sync_folder(path)

    def _working_files(self) -> Tuple[str, str]:
        return f"{self._path}.retry.results", f"{self._errors_path}.retry.tmp"

    def take_places(self) -> None:
        """Puts the new files in the places of the old ones."""
        results, errors = self._working_files()
        _replace(errors, f"{self._errors_path}.retry")
        _replace(f"{self._path}.retry", self._path)
        _replace(f"{self._errors_path}.retry", self._errors_path)
        self.remove_temporary()

    @overrides
    def open_inputs(self, predictor: Predictor, span: int) -> None:
        if InputCounters(predictor):
            raise ResumeError(
                "--retry: this predictor numbers its inputs, so that single ones cannot be "
                "predicted again"
            )
        if not (self._replaces or self.config.join or is_default_dump_line(predictor)):
            raise ResumeError(
                "it cannot be said where the results belong: this predictor has a dump_line of its "
                f"own, which may write other than one line for an input. {_USE_PLACEHOLDER}"
            )
        source = self._source(
            predictor, self.config.input_file, OutputPosition(), self.config.limit
        )
        if self._places is None:
            self._find(source)
        self.sources = [FailedSource(source, self._failures)]

    @overrides
    def _new_sink(self) -> Sink:
        results, errors = map(OutputFile, self._working_files())
        self._results_sink = _ResultSink(
            results,
            errors,
            print_to_console=not self.config.silent,
            on_error=self._settings.on_error,
        )
        return self._results_sink

    def write_merged(self) -> None:
        """Writes the new output beside the old one."""
        file = self.config.output_class(f"{self._path}.retry")
        assert self._places is not None
        with contextlib.closing(file):
            file.begin()
            lines, results = self._old_output(), self._results()
            for text in merge(lines, self._places, self._failures, results, self._replaces):
                file.write(text.encode("UTF-8", "surrogateescape"))
            file.end_part()
            file.sync()
        shutil.copymode(self._path, file.path)
        with open(self._working_files()[1], "rb") as errors:
            shutil.copymode(self._errors_path, errors.name)
            os.utime(errors.fileno())  # not older than the output: see `_end_interrupted`
            os.fsync(errors.fileno())

    def _results(self) -> Iterator[str]:
        with open(self._working_files()[0], "rb") as results:
            for size in self._results_sink.sizes:
                yield results.read(size).decode("UTF-8", "surrogateescape")


class _ResultSink(Sink):
    """Remembers how many bytes the result of each input has."""

    def __init__(self, *files: OutputFile, **options: Any) -> None:
        super().__init__(*files, **options)
        self.sizes: List[int] = []

    @overrides
    def write(self, runs: Sequence[CompletedBatch]) -> None:
        for run in runs:
            for single in singles(run):
                before = self.written.output_bytes
                super().write([single])
                self.sizes.append(self.written.output_bytes - before)


def _replace(path: str, by: str) -> None:
    os.replace(path, by)
    sync_folder(by)
