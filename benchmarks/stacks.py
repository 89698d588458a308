"""
`allennlp predict` and `parallel-predict` in two environments, in turns: a row per environment.

    python benchmarks/stacks.py --python .venv310/bin/python .venv/bin/python

Each interpreter runs every command once in each round, so whatever else the machine does falls on
all of them. The archives are built by the interpreter that runs this script, once for all.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Dict, List, NamedTuple, Tuple

if __name__ == "__main__":
    # The repository instead of this folder, whose names AllenNLP's search for plugins would find.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measure, report, workloads  # noqa: E402
from benchmarks.contestants import CONTESTANTS, Contestant  # noqa: E402
from benchmarks.workloads import CACHE, Workload  # noqa: E402

WORKERS = 2
LINES = {"minilm": 768, "g2p-large": 2048, "g2p": 1344, "tagger": 4096}
DEFAULT = ["minilm", "g2p-large", "tagger"]
NAMES = ("predict", "ours", "ours-bucket", "predict-1", "ours-1")
_VERSIONS = """
import sys, torch
print("Python %d.%d, torch" % sys.version_info[:2], torch.__version__.split("+")[0])
"""


class Case(NamedTuple):
    """What is measured once in each round."""

    stack: str
    workload: Workload
    contestant: Contestant

    @property
    def key(self) -> Tuple[str, str, str]:
        return self.workload.title, self.stack, self.contestant.name


def versions(python: str) -> str:
    """What an environment is, for the table."""
    return subprocess.run(
        [python, "-c", _VERSIONS], stdout=subprocess.PIPE, check=True, text=True
    ).stdout.strip()


def run(case: Case, python: str, lines: int) -> measure.Measured:
    """Runs one command with one interpreter."""
    output = CACHE / "stacks.out"
    inputs = case.workload.head(lines)
    command = case.contestant.command(
        case.workload.archive, case.workload.predictor, inputs, output, WORKERS
    )
    # By this package in any case, which adapts AllenNLP to the libraries of today.
    command[:3] = [python, "-m", "allennlp_parallel_predict"]
    return measure.run_well(command, output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n\n")[0])
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters")
    parser.add_argument("--workloads", nargs="+", choices=list(LINES), default=DEFAULT)
    parser.add_argument("--contestants", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--lines", type=int, help="inputs of each workload")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    stacks = {versions(python): python for python in args.python}
    by_name = {contestant.name: contestant for contestant in CONTESTANTS}
    cases = [
        Case(stack, workload, by_name[name])
        for workload in workloads.prepare(args.workloads)
        for name in args.contestants
        if workload.name != "tagger" or not name.endswith("-1")
        for stack in stacks
    ]
    rates: Dict[Tuple[str, str, str], List[float]] = {case.key: [] for case in cases}
    for number in range(args.rounds):
        for case in cases[:: -1 if number % 2 else 1]:
            lines = args.lines or LINES[case.workload.name]
            measured = run(case, stacks[case.stack], lines)
            rates[case.key].append(measured.steady or 0.0)
            note = {"round": number, "stack": case.stack, "workload": case.workload.name}
            note.update(contestant=case.contestant.name, steady=measured.steady)
            print(json.dumps(note), file=sys.stderr, flush=True)
    print(report.heading(__doc__))
    print(table(rates))


def table(rates: Dict[Tuple[str, str, str], List[float]]) -> str:
    """Medians of the lines per second; in brackets, times `predict` in the same environment."""
    found = {key: median(values) for key, values in rates.items()}
    lines = ["| lines/s | | `predict` | `parallel-predict`, same bytes | with `bucket` |"]
    lines += ["|---|---|--:|--:|--:|"]
    for title in dict.fromkeys(title for title, _, _ in found):
        for suffix, what in (("", "batches of 32"), ("-1", "one by one")):
            for stack in dict.fromkeys(stack for _, stack, _ in found):
                names = [f"predict{suffix}", f"ours{suffix}", f"ours-bucket{suffix}"]
                values = [found.get((title, stack, name)) for name in names]
                if values[0]:
                    cells = [f"{v:,.0f} ({v / values[0]:.2f})" if v else "" for v in values]
                    lines.append(f"| {title}, {what} | {stack} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
