"""The flags that `parallel-predict` adds to those of `predict`."""

import argparse

from allennlp_parallel_predict.common.messages import OnError
from allennlp_parallel_predict.data.formats import FORMATS
from allennlp_parallel_predict.data.output_formats import OUTPUT_FORMATS


def allow_several_inputs(parser: argparse.ArgumentParser) -> None:
    """Lets the input of `predict` be several, or a pattern."""
    parser.add_argument(
        "more_inputs",
        nargs="*",
        metavar="input_file",
        help="more input files; any may be a pattern such as 'part-*.jsonl', with --output-dir or "
        "--output-file",
    )


def add_run_flags(group: argparse._ArgumentGroup) -> None:
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
    add("--max-errors", type=int, metavar="N", help="end the run if more fail (default: no limit)")
    add("--resume", action="store_true", help="continue the interrupted run of --output-file")
    add(
        "--retry",
        metavar="ERRORS_FILE",
        help="predict only the inputs that failed, as this file of --errors-file lists them, and "
        "put the results into --output-file",
    )
    add(
        "--overwrite",
        action="store_true",
        help="start over although an interrupted run of --output-file could be continued",
    )


def add_monitoring_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--progress",
        metavar="auto|always|never|json[:FD]",
        help="whether to show progress on stderr (default: auto, a bar if it is a terminal and "
        "else a line every 30 seconds; json: one object a second; json:3: on file descriptor 3)",
    )
    add("--summary", metavar="FILE.json", help="write figures and the exit status at the end")
    add(
        "--metrics",
        metavar="[ADDRESS:]PORT",
        help="serve counts and times for Prometheus while the run lasts (port 0: any that is free)",
    )
    add(
        "--quiet",
        action="store_true",
        help="log nothing below a warning; with --progress never, print no line at the end either",
    )


def add_input_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--input-format",
        choices=FORMATS,
        help="what the input is: lines for the predictor, plain text, or a table (default: csv or "
        "tsv if its name ends so, or parquet if it is, and the predictor reads JSON; else lines)",
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
        "--map",
        metavar="KEY=COLUMN,...",
        help="read only these columns of a table, and give their values these keys (default: all "
        "columns, under their names)",
    )
    add(
        "--deduplicate",
        action="store_true",
        help="predict identical lines among 2,048 in a row once; exact with batches of one",
    )
    add("--limit", type=int, metavar="N", help="predict only the first N inputs (default: all)")
    add(
        "--dry-run",
        action="store_true",
        help="check everything, predict a sample of the input, and print the first prediction, the "
        "settings and an estimate of time and memory; write no file",
    )
    add("--shard", metavar="K/N", help="predict only the K-th of N parts of the input, e.g., 3/16")


def add_output_flags(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--output-dir",
        metavar="DIR",
        help="write an output for each input, of the same name, into this folder",
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
    add(
        "--output-format",
        choices=OUTPUT_FORMATS,
        help="what --output-file is: lines, lines compressed as gz or zst, or a Parquet table; "
        "auto: what the suffix of its name says (default: lines, whatever its name)",
    )
