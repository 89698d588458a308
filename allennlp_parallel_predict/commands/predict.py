"""
The `parallel-predict` subcommand: `allennlp predict` for people with a lot of input.

It turns flags into a source, a way of batching, an executor and a sink, and runs them.
"""

import argparse
import dataclasses
import enum
import signal
import sys
from typing import Any, Dict

from allennlp.commands.predict import Predict
from allennlp.commands.subcommand import Subcommand
from allennlp.common import logging as common_logging
from overrides import overrides

from allennlp_parallel_predict.commands.flags import (
    add_input_flags,
    add_monitoring_flags,
    add_output_flags,
    add_run_flags,
    allow_several_inputs,
)
from allennlp_parallel_predict.commands.help import improve_help
from allennlp_parallel_predict.commands.user_errors import print_user_errors
from allennlp_parallel_predict.common.errors import Interrupted, OutputClosed
from allennlp_parallel_predict.common.logs import only_warnings
from allennlp_parallel_predict.pipeline.config import RunConfig
from allennlp_parallel_predict.pipeline.dry_run import DryRun
from allennlp_parallel_predict.pipeline.inputs import expand_patterns
from allennlp_parallel_predict.pipeline.retry import RetryRun
from allennlp_parallel_predict.pipeline.run import PredictRun, tell
from allennlp_parallel_predict.pipeline.signals import Interrupts
from allennlp_parallel_predict.pipeline.summary import summarized
from allennlp_parallel_predict.profiling.flags import add_profile_flags, profiled
from allennlp_parallel_predict.settings import (
    Settings,
    build_settings,
    read_settings,
    set_cuda_device,
)

PROG = "allennlp parallel-predict"


class ExitStatus(enum.IntEnum):
    """What the process returns; 1 is an exception, 2 argparse's, 130 and 143 are signals."""

    COMPLETE = 0
    SOME_FAILED = 3
    """Complete but for inputs that failed (see `--on-error`)."""
    OUTPUT_CLOSED = 128 + signal.SIGPIPE
    """What a shell reports of a tool that wrote to a closed pipe."""


_HELP = "Use a trained model to make predictions in several processes."
_EXAMPLE = """model.tar.gz input.jsonl
--output-file output.jsonl --silent --batch-size 32"""


class _NotGiven(int):
    """A flag's default, told from the same value given by the user."""


@Subcommand.register("parallel-predict")
class ParallelPredict(Predict):
    """`allennlp predict`, flag for flag and byte for byte, in a pool of processes."""

    @overrides
    def add_subparser(self, parser: "argparse._SubParsersAction[Any]") -> argparse.ArgumentParser:
        subparser = super().add_subparser(parser)
        parser._choices_actions[-1].help = _HELP
        subparser.description = (
            "Run the specified model against a JSON-lines input file, in several processes."
        )
        allow_several_inputs(subparser)
        subparser._optionals.title = "flags of allennlp predict, which mean the same here"
        ours = subparser.add_argument_group("flags of parallel-predict")
        add_run_flags(ours)
        add_monitoring_flags(ours)
        add_input_flags(ours)
        add_output_flags(ours)
        add_profile_flags(ours)
        improve_help(subparser, _EXAMPLE)
        subparser.set_defaults(func=_predict, batch_size=_NotGiven(1), cuda_device=_NotGiven(-1))
        return subparser


def _predict(args: argparse.Namespace) -> None:
    common_logging.FILE_FRIENDLY_LOGGING = args.file_friendly_logging
    with only_warnings(args.quiet), print_user_errors(PROG):
        settings = _settings(args)
        config = _config(args)
        interrupts = Interrupts()
        kind = DryRun if config.dry_run else RetryRun if config.retry else PredictRun
        run = kind(config, settings, interrupts)
        with summarized(None if config.dry_run else config.summary, run.figures):
            try:
                with interrupts.handled(), profiled(args, settings, run.figures):
                    failures = run.run()
            except Interrupted as error:
                tell(error.message)
                sys.exit(error.exit_status)
            except OutputClosed:
                sys.exit(ExitStatus.OUTPUT_CLOSED)
            if failures:
                sys.exit(ExitStatus.SOME_FAILED)
            if config.writes_nothing:
                sys.exit(ExitStatus.COMPLETE)  # as `predict` does, which only returns after a run


def _config(args: argparse.Namespace) -> RunConfig:
    flags = dict(vars(args))
    inputs = expand_patterns([args.input_file, *args.more_inputs])
    flags["input_file"], *flags["more_inputs"] = inputs
    names = [field.name for field in dataclasses.fields(RunConfig)]
    return RunConfig(**{name: flags[name] for name in names if name in flags})


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
