"""
The `parallel-predict` subcommand: `allennlp predict` for people with a lot of input.

It turns flags into a source, a way of batching, an executor and a sink, and runs them.
"""

import argparse
import sys
from typing import Any, Dict

from allennlp.commands.predict import Predict
from allennlp.commands.subcommand import Subcommand
from allennlp.common import logging as common_logging
from overrides import overrides

from allennlp_parallel_predict.commands.user_errors import print_user_errors
from allennlp_parallel_predict.common.messages import OnError
from allennlp_parallel_predict.data.sinks import OutputClosed
from allennlp_parallel_predict.pipeline.run import PredictRun, tell
from allennlp_parallel_predict.pipeline.signals import Interrupted, Interrupts
from allennlp_parallel_predict.profiling.flags import add_profile_flags, profiled
from allennlp_parallel_predict.settings import (
    PROGRESS,
    Settings,
    build_settings,
    read_settings,
    set_cuda_device,
)

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
            "--on-error",
            choices=[member.value for member in OnError],
            help="what to do about an input that fails",
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
    with print_user_errors(PROG):
        settings = _settings(args)
        interrupts = Interrupts()
        try:
            with interrupts.handled():
                with profiled(args, settings):
                    failures = PredictRun(args, settings, interrupts).run()
        except Interrupted as error:
            tell(error.message)
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
