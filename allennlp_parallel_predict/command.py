"""
The `parallel-predict` subcommand: `allennlp predict` for people with a lot of input.

It turns flags into a source, a way of batching, an executor and a sink, and runs them.
"""

import argparse
import gc
import os
import stat
import sys
from typing import Any, Dict, Optional

from allennlp.commands.predict import Predict
from allennlp.commands.subcommand import Subcommand
from allennlp.common import logging as common_logging
from allennlp.common.checks import ConfigurationError, check_for_gpu
from allennlp.predictors import Predictor
from overrides import overrides

from allennlp_parallel_predict.archives import load_predictor, parse_predictor_args
from allennlp_parallel_predict.checkpoint import Checkpoint, fingerprint
from allennlp_parallel_predict.errors import (
    ResumeError,
    SettingsError,
    explained,
    printed_for_people,
)
from allennlp_parallel_predict.interrupts import Interrupted, Interrupts
from allennlp_parallel_predict.pipeline import Pipeline
from allennlp_parallel_predict.profiling.flags import add_profile_flags, profiled, stage
from allennlp_parallel_predict.profiling.run import RunProfile
from allennlp_parallel_predict.profiling.stages import LOADING
from allennlp_parallel_predict.progress import Progress
from allennlp_parallel_predict.settings import (
    ON_ERROR,
    PROGRESS,
    Settings,
    build_settings,
    read_settings,
    set_cuda_device,
)
from allennlp_parallel_predict.sinks import OutputClosed, Sink, Written
from allennlp_parallel_predict.sources import (
    STDIN,
    InstanceSource,
    LineSource,
    Shard,
    ShardSource,
    Source,
    check_multitask_head,
)
from allennlp_parallel_predict.tuning import fast_mkl
from allennlp_parallel_predict.worker import WorkerOptions

PROG = "allennlp parallel-predict"

EXIT_SOME_FAILED = 3
"""The exit status of a run that is complete but for inputs that failed (see `--on-error`)."""
EXIT_OUTPUT_CLOSED = 141
"""What a shell reports of a tool that wrote to a closed pipe: 128 + SIGPIPE."""

_HELP = "Use a trained model to make predictions in several processes."


class _NotGiven(int):
    """A flag's default, told from the same value given by the user."""


@Subcommand.register("parallel-predict")
class ParallelPredict(Predict):
    """`allennlp predict`, flag for flag and byte for byte, in a pool of processes."""

    @overrides
    def add_subparser(self, parser: argparse._SubParsersAction) -> argparse.ArgumentParser:
        subparser = super().add_subparser(parser)
        parser._choices_actions[-1].help = _HELP
        subparser.description = (
            "Run the specified model against a JSON-lines input file, in several processes."
        )
        subparser.add_argument("--num-workers", type=int, help="the number of worker processes")
        subparser.add_argument(
            "--parallel-config", type=str, help="a Jsonnet file with the settings of the pool"
        )
        subparser.add_argument(
            "--parallel-overrides",
            type=str,
            default="",
            help=(
                "a json(net) structure used to override these settings, e.g., "
                "'{\"executor.threads_per_worker\": 2}'"
            ),
        )
        subparser.add_argument(
            "--on-error", choices=ON_ERROR, help="what to do about an input that fails"
        )
        subparser.add_argument(
            "--errors-file", type=str, help="a file for the inputs that failed, as JSON lines"
        )
        subparser.add_argument(
            "--max-errors", type=int, help="the number of failed inputs after which the run ends"
        )
        subparser.add_argument(
            "--resume", action="store_true", help="go on with the interrupted run of --output-file"
        )
        subparser.add_argument(
            "--progress", choices=PROGRESS, help="whether to draw a progress bar on stderr"
        )
        subparser.add_argument(
            "--shard",
            type=str,
            help="predict only the K-th of N parts of the input: K/N, e.g., 3/16",
        )
        add_profile_flags(subparser)
        subparser.set_defaults(func=_predict, batch_size=_NotGiven(1), cuda_device=_NotGiven(-1))
        return subparser


def _predict(args: argparse.Namespace) -> None:
    common_logging.FILE_FRIENDLY_LOGGING = args.file_friendly_logging
    with printed_for_people(PROG):
        settings = _settings(args)
        interrupts = Interrupts()
        try:
            with interrupts.handled():
                with profiled(args, settings) as profile:
                    failures = _Job(args, settings, interrupts, profile).run()
        except Interrupted as error:
            _tell(error.message)
            sys.exit(error.exit_status)
        except OutputClosed:
            sys.exit(EXIT_OUTPUT_CLOSED)
        if failures:
            sys.exit(EXIT_SOME_FAILED)


def _settings(args: argparse.Namespace) -> Settings:
    flags: Dict[str, Any] = {
        "executor.num_workers": args.num_workers,
        "on_error": args.on_error,
        "max_errors": args.max_errors,
        "progress": args.progress,
    }
    if not isinstance(args.batch_size, _NotGiven):
        flags["batching.batch_size"] = args.batch_size
    given = {key: value for key, value in flags.items() if value is not None}
    values = read_settings(args.parallel_config, args.parallel_overrides, given)
    if not isinstance(args.cuda_device, _NotGiven):
        set_cuda_device(values["executor"], args.cuda_device)
    return build_settings(values)


class _Job:
    """One run of the command."""

    def __init__(
        self,
        args: argparse.Namespace,
        settings: Settings,
        interrupts: Interrupts,
        profile: Optional[RunProfile] = None,
    ) -> None:
        self._args = args
        self._settings = settings
        self._interrupts = interrupts
        self._profile = profile
        self._checkpoint: Optional[Checkpoint] = None
        self._shard = Shard.parse(args.shard) if args.shard is not None else None
        if self._shard is not None and args.input_file == STDIN:
            raise SettingsError("--shard needs an input file, as it counts the inputs first")

    def run(self) -> int:
        """Runs the command; returns the number of inputs that failed."""
        args, executor = self._args, self._settings.executor
        with executor.preparing(), fast_mkl(not self._settings.keeps_bits):
            with stage(self._profile, LOADING):
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
                profile=None if self._profile is None else self._profile.detail,
                exact=self._settings.keeps_bits,
                lockstep=self._settings.batching.batch_size == 1,
            )
            try:
                executor.start(predictor, options)
                self._predict(source, sink, checkpoint)
                executor.close()
            except BaseException:
                executor.kill()
                raise
        return sink.written.failures

    def _load(self) -> Predictor:
        args, executor = self._args, self._settings.executor
        with explained("cannot use the GPU", ConfigurationError):
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
        whole = self._input(predictor, Written())
        lines, start, end = self._shard.bounds(whole, self._settings.batching.span())
        if sink.written.positions < start:
            # It begins as the whole run would go on here.
            sink.written = Written(lines, positions=start, predictions=start)
        return ShardSource(self._input(predictor, sink.written), end)

    def _input(self, predictor: Predictor, written: Written) -> Source:
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
            self._profile,
        )
        # To look for garbage in all that was imported takes a quarter of a second, in which the
        # workers run out of work.
        gc.freeze()
        try:
            pipeline.run()
        except Interrupted as error:
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
        _tell(summary)

    def _checkpoint_file(self) -> Optional[Checkpoint]:
        args = self._args
        if args.output_file and _is_regular(args.output_file) and args.input_file != STDIN:
            return Checkpoint(args.output_file, self._identity())
        if args.resume:
            raise ResumeError("--resume needs an --output-file and an input that is a file")
        return None

    def _identity(self) -> Dict[str, Any]:
        """What the output depends on, so that a run is only resumed as itself."""
        args, batching = self._args, self._settings.batching
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
            "exact": self._settings.keeps_bits,
            "batching": {"type": type(batching).__name__, **vars(batching)},
            **{f"--{flag.replace('_', '-')}": getattr(args, flag, None) for flag in flags},
        }


def _is_regular(path: str) -> bool:
    return not os.path.exists(path) or stat.S_ISREG(os.stat(path).st_mode)


def _tell(message: str) -> None:
    print(f"parallel-predict: {message}", file=sys.stderr)
