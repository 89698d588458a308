"""One run of the command: from an archive and an input to an output file."""

import argparse
import gc
import os
import stat
import sys
from typing import Any, Dict, Optional

from allennlp.common.checks import ConfigurationError, check_for_gpu
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.errors import ResumeError, SettingsError, user_error_context
from allennlp_parallel_predict.common.machine import fast_mkl
from allennlp_parallel_predict.common.messages import WorkerOptions
from allennlp_parallel_predict.common.recorder import current, stage
from allennlp_parallel_predict.common.stages import ENDING, LOADING, STARTING_WORKERS
from allennlp_parallel_predict.data.sharding import Shard, ShardSource
from allennlp_parallel_predict.data.sinks import OutputPosition, Sink
from allennlp_parallel_predict.data.sources import (
    STDIN,
    InstanceSource,
    LineSource,
    Source,
    check_multitask_head,
)
from allennlp_parallel_predict.models.archives import load_predictor, parse_predictor_args
from allennlp_parallel_predict.pipeline.checkpoint import Checkpoint, fingerprint
from allennlp_parallel_predict.pipeline.pipeline import Pipeline
from allennlp_parallel_predict.pipeline.progress import Progress
from allennlp_parallel_predict.pipeline.signals import Interrupted, Interrupts
from allennlp_parallel_predict.settings import Settings


class PredictRun:
    """One run of the command."""

    def __init__(
        self, args: argparse.Namespace, settings: Settings, interrupts: Interrupts
    ) -> None:
        self._args = args
        self._settings = settings
        self._interrupts = interrupts
        self._checkpoint: Optional[Checkpoint] = None
        self._shard = Shard.parse(args.shard) if args.shard is not None else None
        if self._shard is not None and args.input_file == STDIN:
            raise SettingsError("--shard needs an input file, as it counts the inputs first")

    def run(self) -> int:
        """Runs the command; returns the number of inputs that failed."""
        args, executor = self._args, self._settings.executor
        with executor.preparing(), fast_mkl(not self._settings.is_exact):
            with stage(LOADING):
                predictor = self._load()
            if args.silent and not args.output_file:
                print("--silent specified without --output-file.")
                print("Exiting early because no output will be created.")
                sys.exit(0)
            checkpoint = self._checkpoint_file()
            resume_at = checkpoint.load() if checkpoint is not None and args.resume else None
            sink = Sink(
                args.output_file,
                args.errors_file,
                not args.silent,
                self._settings.on_error,
                resume_at,
            )
            source = self._source(predictor, sink)
            if checkpoint is not None and resume_at is None:
                checkpoint.save(sink.sync())
            options = WorkerOptions(
                self._settings.on_error,
                not args.silent,
                source.encoding,
                profile=current().detail,
                exact=self._settings.is_exact,
                lockstep=self._settings.batching.batch_size == 1,
            )
            try:
                with stage(STARTING_WORKERS):
                    executor.start(predictor, options)
                self._predict(source, sink, checkpoint)
                with stage(ENDING):
                    executor.close()
            except BaseException:
                with stage(ENDING):
                    executor.kill()
                raise
        return sink.written.failures

    def _load(self) -> Predictor:
        args, executor = self._args, self._settings.executor
        with user_error_context("cannot use the GPU", ConfigurationError):
            for device in executor.cuda_devices or [-1]:
                check_for_gpu(device)
        return load_predictor(
            args.archive_file,
            args.predictor,
            executor.loading_device,
            args.dataset_reader_choice,
            args.overrides,
            args.weights_file,
            parse_predictor_args(args.predictor_args),
        )

    def _source(self, predictor: Predictor, sink: Sink) -> Source:
        if self._shard is None:
            return self._input(predictor, sink.written)
        whole = self._input(predictor, OutputPosition())
        lines, start, end = self._shard.bounds(whole, self._settings.batching.span())
        if sink.written.positions < start:
            # It begins as the whole run would go on here.
            sink.written = OutputPosition(lines, positions=start, predictions=start)
        return ShardSource(self._input(predictor, sink.written), end)

    def _input(self, predictor: Predictor, written: OutputPosition) -> Source:
        args = self._args
        reader = predictor._dataset_reader if args.use_dataset_reader else None
        check_multitask_head(reader, args.multitask_head)
        if reader is None:
            return LineSource(args.input_file, written.lines, written.positions)
        return InstanceSource(reader, args.input_file, args.multitask_head, written.positions)

    def _predict(self, source: Source, sink: Sink, checkpoint: Optional[Checkpoint]) -> None:
        settings, args = self._settings, self._args
        progress = Progress(settings.progress, source, not args.silent, sink.written.positions)
        pipeline = Pipeline(
            source,
            settings.batching,
            settings.executor,
            sink,
            progress,
            self._interrupts,
            checkpoint,
            settings.checkpoint_interval,
            settings.max_errors,
        )
        # To look for garbage in all that was imported takes a quarter of a second, in which the
        # workers run out of work.
        gc.freeze()
        try:
            pipeline.run()
        except Interrupted as error:
            with stage(ENDING):
                settings.executor.kill()
            pipeline.save_checkpoint()
            error.message = f"interrupted after input line {sink.written.lines:,}"
            if checkpoint is not None and settings.executor.state_change is None:
                error.message += "; run the same command with --resume to go on"
            raise
        finally:
            gc.unfreeze()
            progress.close()
            sink.close()
        if checkpoint is not None:
            checkpoint.remove()
        summary = progress.summary(settings.executor)
        if settings.batching.describe():
            summary += f", {settings.batching.describe()}"
        if sink.written.failures and args.errors_file:
            summary += f" (see {args.errors_file})"
        tell(summary)

    def _checkpoint_file(self) -> Optional[Checkpoint]:
        args = self._args
        if args.output_file and _is_regular(args.output_file) and args.input_file != STDIN:
            return Checkpoint(args.output_file, self._identity())
        if args.resume:
            raise ResumeError("--resume needs an --output-file and an input that is a file")
        return None

    def _identity(self) -> Dict[str, Any]:
        """What the output depends on, so that a run is only resumed as itself."""
        args = self._args
        flags = (
            "predictor",
            "predictor_args",
            "overrides",
            "use_dataset_reader",
            "dataset_reader_choice",
            "multitask_head",
            "include_package",
            "errors_file",
            "shard",
        )
        return {
            "input file": fingerprint(args.input_file),
            "archive": fingerprint(args.archive_file),
            "weights file": fingerprint(args.weights_file) if args.weights_file else None,
            "on_error": self._settings.on_error,
            "number of threads per worker": self._settings.executor.threads(),
            "exact": self._settings.is_exact,
            "batching": self._settings.batching.settings(),
            **{f"--{flag.replace('_', '-')}": getattr(args, flag, None) for flag in flags},
        }


def _is_regular(path: str) -> bool:
    return not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode)


def tell(message: str) -> None:
    print(f"parallel-predict: {message}", file=sys.stderr)
