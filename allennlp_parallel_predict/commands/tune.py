"""The `parallel-tune` subcommand: finds the settings with which an archive predicts fastest."""

import argparse
import json
import sys
from typing import List, Optional, Sequence

from allennlp.commands.predict import Predict
from allennlp.commands.subcommand import Subcommand
from overrides import overrides

from allennlp_parallel_predict.commands.help import improve_help
from allennlp_parallel_predict.commands.user_errors import print_user_errors
from allennlp_parallel_predict.common import machine
from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data.files import check_files
from allennlp_parallel_predict.data.formats import Format, format_by_name, open_source
from allennlp_parallel_predict.data.limits import sample
from allennlp_parallel_predict.data.sources import InstanceSource, Source
from allennlp_parallel_predict.models.archives import load_predictor, parse_predictor_args
from allennlp_parallel_predict.pipeline.tuner import DISAGREEMENT, Measurement, Tuner
from allennlp_parallel_predict.profiling.render import megabytes, table

_SHOWN = 12
_FLAGS_OF_PREDICT = set("archive_file input_file weights_file use_dataset_reader".split())
_FLAGS_OF_PREDICT |= set("dataset_reader_choice overrides predictor predictor_args".split())


@Subcommand.register("parallel-tune")
class ParallelTune(Subcommand):
    """Tries settings of parallel-predict on a sample of the input, within a time budget."""

    @overrides
    def add_subparser(
        self, parser: "argparse._SubParsersAction[argparse.ArgumentParser]"
    ) -> argparse.ArgumentParser:
        what = "Find the fastest settings for parallel-predict on this machine."
        subparser = parser.add_parser(self.name, description=what, help=what)
        of_predict = Predict().add_subparser(argparse.ArgumentParser().add_subparsers())
        for action in of_predict._actions:
            if action.dest in _FLAGS_OF_PREDICT:
                subparser._add_action(action)
        add = subparser.add_argument
        add("--budget", type=float, default=60.0, help="the seconds to try for")
        add("--output", help="a file for the best settings, for --parallel-config")
        keep = "choose among the settings whose output was byte for byte predict's"
        add("--keep-bytes", action="store_true", help=keep)
        size = "the --batch-size of the predict to compare with"
        add("--batch-size", type=int, default=1, help=size)
        improve_help(subparser, "model.tar.gz input.jsonl\n--budget 120 --output pool.jsonnet")
        subparser.set_defaults(func=_tune)
        return subparser


def _tune(args: argparse.Namespace) -> None:
    with print_user_errors("allennlp parallel-tune"), machine.ready_to_fork():
        _check(args)
        predictor = load_predictor(
            args.archive_file,
            args.predictor,
            -1,
            args.dataset_reader_choice,
            args.overrides,
            args.weights_file,
            parse_predictor_args(args.predictor_args),
        )
        source: Source
        if args.use_dataset_reader:
            source = InstanceSource(predictor._dataset_reader, args.input_file)
        else:
            format = Format(format_by_name(args.input_file, predictor))
            source = open_source(args.input_file, format)
        inputs = sample(source)
        if not inputs:
            raise SettingsError(f"there is nothing to predict in {args.input_file}")
        cpus = len(machine.usable_cpus())
        tuner = Tuner(predictor, inputs, source.kind, cpus, args.batch_size, _tell)
        ranked = choose(tuner.search(args.budget), args.keep_bytes)
        print(render(ranked, tuner.measurements.get(tuner.predict)))
        if tuner.state_change is not None:
            print(f"\nOnly one worker can be used with this model: {tuner.state_change}.")
        if args.output:
            with open(args.output, "w") as file:
                file.write(jsonnet(ranked[0]))
            print(f"\nWritten to {args.output}; use it as --parallel-config {args.output}")


def _check(args: argparse.Namespace) -> None:
    """What can be known to be wrong before the budget is spent."""
    for flag, value in (("--budget", args.budget), ("--batch-size", args.batch_size)):
        if value <= 0:
            raise SettingsError(f"{flag} must be over 0, but it is {value}")
    if args.output:
        read = {
            "the input": args.input_file,
            "the archive": args.archive_file,
            "--weights-file": args.weights_file,
        }
        check_files({"--output": args.output}, {name: path for name, path in read.items() if path})


def choose(ranked: Sequence[Measurement], keep_bytes: bool) -> List[Measurement]:
    """All measurements, but first the one to choose."""
    if not any(measurement.lines_per_second for measurement in ranked):
        raise SettingsError("nothing was predicted within the --budget; give it more seconds")
    best = next((one for one in ranked if not keep_bytes or one.same_bytes), None)
    if best is None:
        raise SettingsError("no settings were seen to keep predict's bytes; raise the --budget")
    return [best, *(measurement for measurement in ranked if measurement is not best)]


def render(ranked: Sequence[Measurement], predict: Optional[Measurement] = None) -> str:
    """The measurements as a table, the best first, and `predict` above them."""
    rows = [["", "workers", "threads", "batch size", "batching", "lines/s", "x", "memory", "bytes"]]
    same = {True: "predict's", False: "differ", None: "?"}
    speed = predict.lines_per_second if predict is not None else 0.0
    for one in [*([predict] if predict is not None else []), *ranked[:_SHOWN]]:
        workers, threads, size, batching, is_predict = one.candidate
        mark = "predict" if is_predict else "best" if one is ranked[0] else ""
        ratio = f"{one.lines_per_second / speed:.2f}" if speed else ""
        numbers = [str(workers), str(threads), str(size), batching]
        numbers += [f"{one.lines_per_second:,.1f}", ratio, megabytes(one.memory)]
        rows.append([mark, *numbers, same[one.same_bytes]])
    notes = ["x: times predict. bytes: compared with predict's on one thread, where both came."]
    if ranked[0].disagreement > DISAGREEMENT:
        notes.append(
            f"warning: measurements of the best differ by {ranked[0].disagreement:.0%}: repeat "
            "this on a machine at rest, or with a larger --budget."
        )
    return "\n\n".join([table(rows), *notes])


def jsonnet(measurement: Measurement) -> str:
    """The settings of a measurement as a file for `--parallel-config`."""
    text = json.dumps(measurement.candidate.settings(), indent=2)
    rate = f"{measurement.lines_per_second:,.1f} lines/s"
    return f"// Chosen by allennlp parallel-tune: {rate}\n{text}\n"


def _tell(text: str) -> None:
    print(f"parallel-tune: {text}", file=sys.stderr, flush=True)
