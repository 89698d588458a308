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

from allennlp_parallel_predict.commands.help import improve_help
from allennlp_parallel_predict.commands.user_errors import print_user_errors
from allennlp_parallel_predict.common.errors import Interrupted, OutputClosed
from allennlp_parallel_predict.common.messages import OnError
from allennlp_parallel_predict.data.formats import FORMATS
from allennlp_parallel_predict.pipeline.config import RunConfig
from allennlp_parallel_predict.pipeline.dry_run import DryRun
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
        subparser._optionals.title = "flags of allennlp predict, which mean the same here"
        ours = subparser.add_argument_group("flags of parallel-predict")
        _add_flags(ours)
        add_profile_flags(ours)
        improve_help(subparser, _EXAMPLE)
        subparser.set_defaults(func=_predict, batch_size=_NotGiven(1), cuda_device=_NotGiven(-1))
        return subparser


def _add_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--num-workers",
        type=int,
        metavar="N",
        help="number of worker processes (default: one per CPU that may be used, or per GPU)",
    )
    add("--parallel-config", metavar="FILE", help="a Jsonnet file with the settings of the pool")
    add(
        "--parallel-overrides",
        default="",
        metavar="JSON",
        help="changes to these settings, such as '{\"executor.threads_per_worker\": 2}'",
    )
    add(
        "--on-error",
        choices=[member.value for member in OnError],
        help="what to do about an input that fails: end the run, leave it out, or write the error "
        "in its place (default: raise)",
    )
    add("--errors-file", metavar="FILE", help="where to list the inputs that failed (JSON lines)")
    add(
        "--max-errors",
        type=int,
        metavar="N",
        help="end the run if more inputs fail (default: no limit)",
    )
    add("--resume", action="store_true", help="continue the interrupted run of --output-file")
    add(
        "--overwrite",
        action="store_true",
        help="start over although an interrupted run of --output-file could be continued",
    )
    add(
        "--progress",
        metavar="auto|always|never|json[:FD]",
        help="whether to show progress on stderr (default: auto, a bar if it is a terminal and "
        "else a line every 30 seconds; json: one object a second; json:3: on file descriptor 3)",
    )
    add("--summary", metavar="FILE.json", help="write figures and the exit status at the end")
    add(
        "--input-format",
        choices=FORMATS,
        help="what the input is: lines for the predictor, plain text, or a table (default: csv or "
        "tsv if its name ends so and the predictor reads JSON, else lines)",
    )
    add(
        "--text-field",
        default="sentence",
        metavar="NAME",
        help="the key of a line of plain text in the input of the predictor",
    )
    add(
        "--fields",
        metavar="A,B",
        help="the keys of the columns of a table (default: those in its first line)",
    )
    add(
        "--keep-input",
        action="store_true",
        help="put the input into each output object, as its field `input`",
    )
    add("--id-field", metavar="NAME", help="copy this field of the input into each output object")
    add(
        "--output-fields",
        metavar="A,B.C",
        help="write only these fields of the outputs; a dot goes into an object, or into those of "
        "a list (default: all)",
    )
    add("--limit", type=int, metavar="N", help="predict only the first N inputs (default: all)")
    add(
        "--dry-run",
        action="store_true",
        help="check everything, predict a sample of the input, and print the first prediction, the "
        "settings and an estimate of time and memory; write no file",
    )
    add("--shard", metavar="K/N", help="predict only the K-th of N parts of the input, e.g., 3/16")


def _predict(args: argparse.Namespace) -> None:
    common_logging.FILE_FRIENDLY_LOGGING = args.file_friendly_logging
    with print_user_errors(PROG):
        settings = _settings(args)
        config = _config(args)
        interrupts = Interrupts()
        run = (DryRun if config.dry_run else PredictRun)(config, settings, interrupts)
        with summarized(None if config.dry_run else config.summary, run.figures):
            try:
                with interrupts.handled(), profiled(args, settings):
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
    flags = vars(args)
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
