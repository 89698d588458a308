"""The `parallel-tune` subcommand: finds the settings with which an archive predicts fastest."""

import argparse
import itertools
import json
import sys
from typing import List, Sequence

from allennlp.commands.subcommand import Subcommand
from overrides import overrides

from allennlp_parallel_predict.commands.help import improve_help
from allennlp_parallel_predict.commands.user_errors import print_user_errors
from allennlp_parallel_predict.common import machine
from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.data.sources import InstanceSource, LineSource, Source
from allennlp_parallel_predict.models.archives import load_predictor, parse_predictor_args
from allennlp_parallel_predict.pipeline.tuner import Measurement, Tuner
from allennlp_parallel_predict.profiling.render import megabytes, table

_SAMPLE = 2048
"""Inputs: as many as `bucket` batching sorts together."""
_LOOKED_AT = 1_000_000
"""The inputs at the beginning of a file that the sample is taken from."""
_SHOWN = 12


@Subcommand.register("parallel-tune")
class ParallelTune(Subcommand):
    """Tries settings of parallel-predict on a sample of the input, within a time budget."""

    @overrides
    def add_subparser(self, parser: argparse._SubParsersAction) -> argparse.ArgumentParser:
        subparser = parser.add_parser(
            self.name,
            description="Find the fastest settings for parallel-predict on this machine.",
            help="Find the fastest settings for parallel-predict.",
        )
        add = subparser.add_argument
        add("archive_file", type=str, help="the archived model to make predictions with")
        add("input_file", type=str, help="path to or url of the input file")
        add("--budget", type=float, default=60.0, help="the seconds to try for")
        add("--output", type=str, help="a file for the best settings, for --parallel-config")
        add(
            "--keep-bytes",
            action="store_true",
            help="choose among the settings whose output was byte for byte predict's",
        )
        add("--batch-size", type=int, default=1, help="the --batch-size of that predict")
        add("--weights-file", type=str, help="a path that overrides which weights file to use")
        add("--use-dataset-reader", action="store_true", help="as in parallel-predict")
        add(
            "--dataset-reader-choice",
            choices=["train", "validation"],
            default="validation",
            help="as in parallel-predict",
        )
        add("-o", "--overrides", type=str, default="", help="as in parallel-predict")
        add("--predictor", type=str, help="as in parallel-predict")
        add("--predictor-args", type=str, default="", help="as in parallel-predict")
        improve_help(subparser, "model.tar.gz input.jsonl\n--budget 120 --output pool.jsonnet")
        subparser.set_defaults(func=_tune)
        return subparser


def _tune(args: argparse.Namespace) -> None:
    with print_user_errors("allennlp parallel-tune"), machine.ready_to_fork():
        if args.budget <= 0:
            raise SettingsError(f"--budget must be over 0 seconds, but it is {args.budget}")
        predictor = load_predictor(
            args.archive_file,
            args.predictor,
            -1,
            args.dataset_reader_choice,
            args.overrides,
            args.weights_file,
            parse_predictor_args(args.predictor_args),
        )
        source: Source = LineSource(args.input_file)
        if args.use_dataset_reader:
            source = InstanceSource(predictor._dataset_reader, args.input_file)
        inputs = sample(source, _SAMPLE)
        if not inputs:
            raise SettingsError(f"there is nothing to predict in {args.input_file}")
        cpus = len(machine.usable_cpus())
        tuner = Tuner(predictor, inputs, source.kind, cpus, args.batch_size, _tell)
        ranked = tuner.search(args.budget)
        ranked = choose(ranked, args.keep_bytes)
        print(render(ranked, args.batch_size))
        if tuner.state_change is not None:
            print(f"\nOnly one worker can be used with this model: {tuner.state_change}.")
        if args.output:
            with open(args.output, "w") as file:
                file.write(jsonnet(ranked[0]))
            print(f"\nWritten to {args.output}; use it as --parallel-config {args.output}")


def sample(source: Source, size: int) -> List[Input]:
    """Inputs from all over a source, in their order."""
    total = min(source.total() or size, _LOOKED_AT)
    step = max(1, total // size)
    there = (item for item in source if item is not None)
    return list(itertools.islice(itertools.islice(there, _LOOKED_AT), 0, step * size, step))


def choose(ranked: Sequence[Measurement], keep_bytes: bool) -> List[Measurement]:
    """All measurements, but first the one to choose."""
    if not any(measurement.lines_per_second for measurement in ranked):
        raise SettingsError("nothing was predicted within the --budget; give it more seconds")
    best = next((t for t in ranked if not keep_bytes or t.same_bytes), None)
    if best is None:
        raise SettingsError("no settings were seen to keep predict's bytes; raise the --budget")
    return [best, *(measurement for measurement in ranked if measurement is not best)]


def render(ranked: Sequence[Measurement], batch_size: int) -> str:
    """The measurements as a table, the best first."""
    rows = [["", "workers", "threads", "batch size", "batching", "lines/s", "memory", "bytes"]]
    same = {True: "predict's", False: "differ", None: "?"}
    for measurement in ranked[:_SHOWN]:
        workers, threads, size, batching = measurement.candidate
        numbers = [str(workers), str(threads), str(size), batching]
        rate = f"{measurement.lines_per_second:,.1f}"
        mark = "best" if measurement is ranked[0] else ""
        rows.append(
            [mark, *numbers, rate, megabytes(measurement.memory), same[measurement.same_bytes]]
        )
    note = f"bytes: compared with predict --batch-size {batch_size} and one thread, where both came"
    return f"{table(rows)}\n\n{note}"


def jsonnet(measurement: Measurement) -> str:
    """The settings of a measurement as a file for `--parallel-config`."""
    text = json.dumps(measurement.candidate.settings(), indent=2)
    rate = f"{measurement.lines_per_second:,.1f} lines/s"
    return f"// Chosen by allennlp parallel-tune: {rate}\n{text}\n"


def _tell(text: str) -> None:
    print(f"parallel-tune: {text}", file=sys.stderr, flush=True)
