"""One run of the command: from an archive and an input to an output file."""

import contextlib
import gc
import os
import sys
from functools import partial
from typing import Callable, List, Optional, Tuple

from allennlp.common.checks import ConfigurationError
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.errors import Interrupted, SettingsError, explain
from allennlp_parallel_predict.common.messages import OnError, Precision, WorkerOptions
from allennlp_parallel_predict.common.recorder import current, stage
from allennlp_parallel_predict.common.stages import ENDING, LOADING, STARTING_WORKERS
from allennlp_parallel_predict.data.deduplication import DeduplicatedBatching
from allennlp_parallel_predict.data.sinks import ENCODING
from allennlp_parallel_predict.data.sources import Source
from allennlp_parallel_predict.models.archives import load_predictor, parse_predictor_args
from allennlp_parallel_predict.models.gpus import check_gpus
from allennlp_parallel_predict.models.state import InputCounters
from allennlp_parallel_predict.pipeline.agreement import check_sample, compare_precision
from allennlp_parallel_predict.pipeline.config import RunConfig
from allennlp_parallel_predict.pipeline.inputs import check_run, outputs_of
from allennlp_parallel_predict.pipeline.pipeline import Pipeline
from allennlp_parallel_predict.pipeline.progress import Progress, check_progress
from allennlp_parallel_predict.pipeline.run_metrics import RunMetrics
from allennlp_parallel_predict.pipeline.run_output import RunOutput
from allennlp_parallel_predict.pipeline.signals import Interrupts
from allennlp_parallel_predict.pipeline.summary import Figures
from allennlp_parallel_predict.settings import Settings


class PredictRun:
    """One run of the command."""

    def __init__(self, config: RunConfig, settings: Settings, interrupts: Interrupts) -> None:
        self._config = config
        self._settings = settings
        self._interrupts = interrupts
        self._batching = settings.batching
        if config.deduplicate:
            executor = settings.executor
            self._batching = DeduplicatedBatching(self._batching, lambda: executor.state_change)
        self.figures: Figures = {}
        """What became of the run so far; empty until its files have been checked."""
        self._agreement = ""
        """How far the precision of the run agrees with fp32, if it is another."""
        self._next_number = 0
        """That of the next batch."""

    def run(self) -> int:
        """Runs the command; returns the number of inputs that failed."""
        config = self._config
        check_run(config)
        check_progress(self._settings.progress)
        check_sample(self._settings, config.input_file)
        self.figures.update(lines=0, failures=0)
        if config.writes_nothing:
            print("--silent specified without --output-file.")
            print("Exiting early because no output will be created.")
            return 0
        metrics = RunMetrics(self._settings.executor, config.metrics)
        with contextlib.closing(metrics) as self._metrics:
            return self._open_and_run()

    def _open_and_run(self) -> int:
        left: List[RunOutput] = []
        failures = 0
        with contextlib.ExitStack() as stack:
            for config in outputs_of(self._config):
                output = self._output(config)
                stack.callback(output.close)
                if output.is_complete():
                    tell(f"nothing to do: {config.output_file} is already complete")
                else:
                    left.append(output)
            if left and self._metrics.url is not None:
                tell(f"metrics at {self._metrics.url}")
            if left:
                failures = self._run(left)
        return failures

    def _output(self, config: RunConfig) -> RunOutput:
        return RunOutput(config, self._settings)

    def _run(self, outputs: List[RunOutput]) -> int:
        executor = self._settings.executor
        with executor.preparing():
            with stage(LOADING):
                predictor = self._load()
            if self._config.deduplicate and InputCounters(predictor):
                raise SettingsError(
                    "--deduplicate: this predictor numbers its inputs, so that identical ones have "
                    "different results"
                )
            try:
                for output in outputs:
                    output.open_inputs(predictor, self._batching.span())
            except ConfigurationError as error:
                if not isinstance(error, SettingsError):
                    outputs[0].begin()  # as `predict`, which opens it before it asks the reader
                raise
            self._compare_precision(predictor, outputs[0].sources[0])
            for output in outputs:
                if os.path.exists(output.config.output_file or ""):
                    output.claim()
            outputs[0].begin()
            start = partial(executor.start, predictor, self._options(outputs[0].sources[0]))
            try:
                with stage(STARTING_WORKERS):
                    start()
                failures = self._predict(outputs, start)
                with stage(ENDING):
                    executor.close()
            except BaseException:
                with stage(ENDING):
                    executor.kill()
                raise
        return failures

    def _options(self, source: Source) -> WorkerOptions:
        settings = self._settings
        return WorkerOptions(
            settings.on_error,
            not self._config.silent,
            source.encoding,
            self._output_encodings(),
            profile=current().detail,
            exact=settings.is_exact,
            precision=settings.precision,
            may_group=settings.batching.batch_size == 1 and settings.precision == Precision.FP32,
            join=self._config.join,
        )

    def _output_encodings(self) -> List[Tuple[str, str]]:
        echoes, on_error = not self._config.silent, self._settings.on_error
        if echoes and on_error == OnError.RAISE:
            return []  # `predict` has printed the input by the time that it fails
        encodings = [] if self._config.writes_no_file else [(ENCODING, "strict")]
        if echoes and sys.stdout.encoding:
            encodings.append((sys.stdout.encoding, sys.stdout.errors or "strict"))
        return encodings

    def _load(self) -> Predictor:
        config, executor = self._config, self._settings.executor
        check_gpus(executor.cuda_devices)
        return load_predictor(
            config.archive_file,
            config.predictor,
            executor.loading_device,
            config.dataset_reader_choice,
            config.overrides,
            config.weights_file,
            parse_predictor_args(config.predictor_args),
        )

    def _compare_precision(self, predictor: Predictor, source: Source) -> None:
        if self._settings.precision != Precision.FP32:
            self._agreement = compare_precision(predictor, source, self._settings, self.figures)

    def _predict(self, outputs: List[RunOutput], restart: Callable[[], None]) -> int:
        settings = self._settings
        progress = Progress(
            settings.progress,
            [source for output in outputs for source in output.sources],
            not self._config.silent,
            done=sum(output.start.positions for output in outputs),
            failures=sum(output.start.failures for output in outputs),
        )
        # To look for garbage in all that was imported takes a quarter of a second, in which the
        # workers run out of work.
        gc.freeze()
        try:
            for output in outputs:
                sink = output.begin()
                try:
                    for index in range(len(output.sources)):
                        if self._next_number and settings.executor.state_change is not None:
                            settings.executor.kill()
                            restart()  # `predict` begins each input with the state of the archive
                        self._predict_input(output, index, progress)
                finally:
                    sink.close()
        finally:
            gc.unfreeze()
            self.figures.update(progress.finish(settings.executor))
            if isinstance(self._batching, DeduplicatedBatching):
                self.figures["deduplicated"] = self._batching.left_out
            progress.close()
        self._summarize(progress)
        return progress.failures

    def _summarize(self, progress: Progress) -> None:
        config, settings = self._config, self._settings
        summary = progress.summary(settings.executor)
        if self._batching.describe() and not config.more_inputs:
            summary += f", {self._batching.describe()}"
        if self._agreement:
            summary += f"; {self._agreement}"
        if progress.failures and config.errors_file:
            summary += f" (see {config.errors_file})"
        if not config.quiet or settings.progress != "never":
            tell(summary)

    def _predict_input(self, output: RunOutput, index: int, progress: Progress) -> None:
        settings, sink = self._settings, output.begin()
        start = sink.written
        name = output.config.input_files[start.inputs] if self._config.more_inputs else None
        progress.begin_input(start.positions, start.failures)
        pipeline = Pipeline(
            output.sources[index],
            self._batching,
            settings.executor,
            sink,
            progress=progress,
            interrupts=self._interrupts,
            checkpoint=output.checkpoint,
            checkpoint_interval=settings.checkpoint_interval,
            max_errors=settings.max_errors,
            metrics=self._metrics,
            first_number=self._next_number,
            input_file=name,
        )
        try:
            pipeline.run()
            if index == len(output.sources) - 1:
                output.finish(pipeline, self._interrupts)
            else:
                with self._interrupts.shielded():
                    sink.begin_input()
        except BaseException as error:
            with stage(ENDING):
                settings.executor.kill()
            with contextlib.suppress(Exception):  # the checkpoint before it is sound
                pipeline.save_checkpoint()
            if isinstance(error, Interrupted):
                error.message = self._interruption(output, name)
            elif name is not None:
                _name_input(error, name)
            raise
        finally:
            # Of the batch with the error that ends a run, not all inputs have been written.
            done = start.positions + sink.written.results - start.results
            progress.set(done, sink.written.failures)
            self._next_number = pipeline.next_number

    def _interruption(self, output: RunOutput, name: Optional[str]) -> str:
        of = "" if name is None else f" of {name}"
        message = f"interrupted after input line {output.begin().written.lines:,}{of}"
        if output.checkpoint is not None and self._settings.executor.state_change is None:
            message += "; run the same command with --resume to go on"
        return message


def _name_input(error: BaseException, name: str) -> None:
    """Says in an error's explanation, if it has one, which input it is about."""
    text = getattr(error, "explanation", name)
    if name not in text:
        explain(error, f"{name}: {text}")


def tell(message: str) -> None:
    print(f"parallel-predict: {message}", file=sys.stderr)
