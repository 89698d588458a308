"""One run of the command: from an archive and an input to an output file."""

import contextlib
import gc
import sys
from typing import List, Optional, Tuple

from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.errors import Interrupted, SettingsError
from allennlp_parallel_predict.common.messages import OnError, Precision, WorkerOptions
from allennlp_parallel_predict.common.recorder import current, stage
from allennlp_parallel_predict.common.stages import ENDING, LOADING, STARTING_WORKERS
from allennlp_parallel_predict.data.deduplication import DeduplicatedBatching
from allennlp_parallel_predict.data.files import OutputFile, close_all, is_regular, open_outputs
from allennlp_parallel_predict.data.formats import format_by_name, open_source
from allennlp_parallel_predict.data.limits import LimitedSource
from allennlp_parallel_predict.data.parquet_output import ConvertedFile
from allennlp_parallel_predict.data.sharding import Shard
from allennlp_parallel_predict.data.sinks import ENCODING, OutputPosition, Sink
from allennlp_parallel_predict.data.sources import (
    InstanceSource,
    Source,
    check_multitask_head,
    reads_once,
)
from allennlp_parallel_predict.models.archives import load_predictor, parse_predictor_args
from allennlp_parallel_predict.models.gpus import check_gpus
from allennlp_parallel_predict.models.state import InputCounters
from allennlp_parallel_predict.pipeline.agreement import check_sample, compare_precision
from allennlp_parallel_predict.pipeline.checkpoint import Checkpoint
from allennlp_parallel_predict.pipeline.config import RunConfig
from allennlp_parallel_predict.pipeline.pipeline import Pipeline
from allennlp_parallel_predict.pipeline.progress import Progress, check_progress
from allennlp_parallel_predict.pipeline.run_metrics import RunMetrics
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
        self._output: Optional[OutputFile] = None
        self._errors: Optional[OutputFile] = None
        self._checkpoint: Optional[Checkpoint] = None
        self._resume_at: Optional[OutputPosition] = None
        self._agreement = ""
        """How far the precision of the run agrees with fp32, if it is another."""

    def run(self) -> int:
        """Runs the command; returns the number of inputs that failed."""
        config = self._config
        config.check()
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
        config = self._config
        self._output, self._errors = open_outputs(
            config.output_file, config.errors_file, config.output_class
        )
        try:
            if self._is_complete():
                tell(f"nothing to do: {config.output_file} is already complete")
                return 0
            if self._metrics.url is not None:
                tell(f"metrics at {self._metrics.url}")
            return self._run()
        finally:
            close_all(file for file in (self._output, self._errors) if file is not None)

    def _is_complete(self) -> bool:
        """Looks for an earlier run; returns whether there is nothing left to do."""
        config = self._config
        if not config.output_file or not is_regular(config.output_file):
            return False
        checkpoint = Checkpoint(config.output_file, config.identity(self._settings))
        if not config.resume and not config.overwrite and self._output is not None:
            checkpoint.protect(self._output.path)
        self._checkpoint = checkpoint
        if config.resume and checkpoint.exists():
            self._resume(checkpoint)
        if not config.resume or not checkpoint.is_complete():
            return False
        checkpoint.remove()  # what a crash left of it
        return True

    def _resume(self, checkpoint: Checkpoint) -> None:
        self._resume_at = at = checkpoint.load()
        for file, size, checksum in (
            (self._output, at.output_bytes, at.output_checksum),
            (self._errors, at.errors_bytes, at.errors_checksum),
        ):
            if file is not None and not file.resume_at(size, checksum):
                raise checkpoint.refuse_output(file.path)

    def _run(self) -> int:
        executor = self._settings.executor
        with executor.preparing():
            with stage(LOADING):
                predictor = self._load()
            if self._config.deduplicate and InputCounters(predictor):
                raise SettingsError(
                    "--deduplicate: this predictor numbers its inputs, so that identical ones have "
                    "different results"
                )
            self._compare_precision(predictor)
            sink, source = self._open(predictor)
            try:
                with stage(STARTING_WORKERS):
                    executor.start(predictor, self._options(source))
                self._predict(source, sink)
                with stage(ENDING):
                    executor.close()
            except BaseException:
                with stage(ENDING):
                    executor.kill()
                raise
        return sink.written.failures

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
        encodings = [(ENCODING, "strict")] if self._config.output_file else []
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

    def _compare_precision(self, predictor: Predictor) -> None:
        if self._settings.precision != Precision.FP32:
            source = self._source(predictor, *self._bounds(predictor))
            self._agreement = compare_precision(predictor, source, self._settings, self.figures)

    def _open(self, predictor: Predictor) -> Tuple[Sink, Source]:
        """Makes the output this run's, and the source of its inputs."""
        start, end = self._bounds(predictor)
        checkpoint = self._checkpoint
        if checkpoint is not None and not reads_once(self._config.input_file):
            # Before the output is touched: one without a checkpoint is complete.
            checkpoint.save(start)
        sink = Sink(
            self._output,
            self._errors,
            print_to_console=not self._config.silent,
            on_error=self._settings.on_error,
            start=start,
        )
        if checkpoint is not None and reads_once(self._config.input_file):
            checkpoint.remove()
            self._checkpoint = None
        return sink, self._source(predictor, start, end)

    def _bounds(self, predictor: Predictor) -> Tuple[OutputPosition, Optional[int]]:
        """Where the run starts, and the position after its last input if there are others."""
        start, limit = self._resume_at or OutputPosition(), self._config.limit
        if self._config.shard is None:
            return start, limit
        whole = self._source(predictor, OutputPosition(), limit)
        span = self._batching.span()
        shard = Shard.parse(self._config.shard).bounds(whole, span)
        if start.positions < shard.start:
            # It begins as the whole run would go on here.
            start = OutputPosition(shard.lines, shard.start, predictions=shard.start)
        return start, shard.end

    def _source(self, predictor: Predictor, start: OutputPosition, end: Optional[int]) -> Source:
        config = self._config
        reader = predictor._dataset_reader if config.use_dataset_reader else None
        check_multitask_head(reader, config.multitask_head)
        source: Source
        if reader is None:
            format = config.format(format_by_name(config.input_file, predictor))
            source = open_source(config.input_file, format, (start.lines, start.positions))
        else:
            head = config.multitask_head
            source = InstanceSource(reader, config.input_file, head, start.positions)
        return source if end is None else LimitedSource(source, end)

    def _predict(self, source: Source, sink: Sink) -> None:
        settings, start = self._settings, sink.written
        progress = Progress(settings.progress, source, not self._config.silent, start.positions)
        pipeline = Pipeline(
            source,
            self._batching,
            settings.executor,
            sink,
            progress=progress,
            interrupts=self._interrupts,
            checkpoint=self._checkpoint,
            checkpoint_interval=settings.checkpoint_interval,
            max_errors=settings.max_errors,
            metrics=self._metrics,
        )
        # To look for garbage in all that was imported takes a quarter of a second, in which the
        # workers run out of work.
        gc.freeze()
        try:
            pipeline.run()
            self._finish(pipeline)
        except BaseException as error:
            with stage(ENDING):
                settings.executor.kill()
            with contextlib.suppress(Exception):  # the checkpoint before it is sound
                pipeline.save_checkpoint()
            if isinstance(error, Interrupted):
                error.message = self._interruption(sink)
            raise
        finally:
            gc.unfreeze()
            # Of the batch with the error that ends a run, not all inputs have been written.
            done = start.positions + sink.written.results - start.results
            failures = sink.written.failures
            self.figures.update(progress.finish(done, failures, settings.executor))
            if isinstance(self._batching, DeduplicatedBatching):
                self.figures["deduplicated"] = self._batching.left_out
            progress.close()
            sink.close()
        self._summarize(progress, sink)

    def _summarize(self, progress: Progress, sink: Sink) -> None:
        config, settings = self._config, self._settings
        summary = progress.summary(settings.executor)
        if self._batching.describe():
            summary += f", {self._batching.describe()}"
        if self._agreement:
            summary += f"; {self._agreement}"
        if sink.written.failures and config.errors_file:
            summary += f" (see {config.errors_file})"
        if not config.quiet or settings.progress != "never":
            tell(summary)

    def _finish(self, pipeline: Pipeline) -> None:
        converted = self._output if isinstance(self._output, ConvertedFile) else None
        if converted is not None:
            pipeline.save_checkpoint()
            converted.convert()  # may be interrupted
        with self._interrupts.shielded():
            pipeline.finish()
            if converted is not None:
                converted.remove_lines()  # not before the run is known to be complete

    def _interruption(self, sink: Sink) -> str:
        message = f"interrupted after input line {sink.written.lines:,}"
        if self._checkpoint is not None and self._settings.executor.state_change is None:
            message += "; run the same command with --resume to go on"
        return message


def tell(message: str) -> None:
    print(f"parallel-predict: {message}", file=sys.stderr)
