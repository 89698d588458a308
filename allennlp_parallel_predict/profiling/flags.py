"""The flags of a profile, and what becomes of it at the end of a run."""

import argparse
import json
import sys
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional

from allennlp_parallel_predict.common.recorder import recording
from allennlp_parallel_predict.profiling.recorder import RunProfile
from allennlp_parallel_predict.profiling.render import render
from allennlp_parallel_predict.profiling.report import Report, build_report
from allennlp_parallel_predict.profiling.trace import chrome_trace
from allennlp_parallel_predict.settings import Settings

_NO_FILE = ""


def add_profile_flags(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--profile",
        type=_json_file,
        nargs="?",
        const=_NO_FILE,
        metavar="FILE.json",
        help="print where the time went, at the end; and write it to a file",
    )
    parser.add_argument(
        "--profile-trace",
        type=_json_file,
        metavar="FILE.json",
        help="write a timeline for ui.perfetto.dev or chrome://tracing",
    )
    plot_help = "draw a timeline, as .png, .svg or .html"
    parser.add_argument("--profile-plot", metavar="FILE", help=plot_help)


def _json_file(text: str) -> str:
    # Else `--profile model.tar.gz input.jsonl` would take the archive for its file. (argparse asks
    # about the `const` too.)
    if text != _NO_FILE and not text.endswith(".json"):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no FILE.json (give --profile behind the other arguments if it is to "
            "have no file)"
        )
    return text


@contextmanager
def profiled(
    args: argparse.Namespace, settings: Settings, figures: Dict[str, Any]
) -> Iterator[None]:
    """
    Profiles a run if the flags ask for it, and reports at its end, also if it is interrupted.

    # Raises

    `SettingsError`
        If no picture can be drawn, which is better known before the run.
    """
    with_timeline = bool(args.profile_trace or args.profile_plot)
    if args.profile is None and not with_timeline:
        yield
        return
    if args.profile_plot:
        from allennlp_parallel_predict.profiling.plot import check_plot

        check_plot(args.profile_plot)
    profile = RunProfile(with_timeline, from_process_start=True)
    try:
        with recording(profile):
            yield
    finally:
        profile.finish()
        if profile.predicting_since is not None:
            report = {**build_report(profile, settings), "agreement": figures.get("agreement")}
            _write(args, report, profile)


def _write(args: argparse.Namespace, report: Report, profile: RunProfile) -> None:
    print(f"\n{render(report)}", file=sys.stderr)
    if args.profile:
        _dump(report, args.profile, indent=2)
    if args.profile_trace:
        _dump(chrome_trace(profile), args.profile_trace)
    if args.profile_plot:
        from allennlp_parallel_predict.profiling.plot import plot

        plot(profile, report, args.profile_plot)


def _dump(value: Any, path: str, indent: Optional[int] = None) -> None:
    with open(path, "w") as file:
        json.dump(value, file, indent=indent)
        file.write("\n")
