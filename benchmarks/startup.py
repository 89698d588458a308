"""
What it costs to start: `allennlp predict` and `parallel-predict` on ten lines, in pairs.

The two take turns, each going first as often as the other, because this is about tenths of seconds
on a machine that has other things to do.
"""

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import Callable, List, Tuple

if __name__ == "__main__":
    # The repository instead of this folder, whose names AllenNLP's search for plugins would find.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measure, report, workloads  # noqa: E402
from benchmarks.contestants import Contestant  # noqa: E402
from benchmarks.workloads import CACHE, Workload  # noqa: E402

LINES = 10
_OFTEN, _NEVER = 0.1, 1e9
"""Seconds between two looks at the memory, which would disturb a measurement of times."""


def run(workload: Workload, subcommand: str, interval: float) -> measure.Measured:
    settings = {} if subcommand == "parallel-predict" else None
    contestant = Contestant("", "", None, subcommand, settings=settings)
    output = CACHE / "startup.out"
    command = contestant.command(
        workload.archive, workload.predictor, workload.head(LINES), output, 2
    )
    return measure.run_well(command, output, memory_interval=interval)


def main() -> None:
    parser = argparse.ArgumentParser(description="What it costs to start.")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--workloads", nargs="+", default=["g2p", "minilm", "tagger"])
    args = parser.parse_args()
    print(report.heading(__doc__))
    print("| | | predict | parallel-predict | difference, median [smallest, largest] |")
    print("|---|---|--:|--:|--:|")
    for workload in workloads.prepare(args.workloads):
        pairs = _pairs(workload, args.pairs, _NEVER)
        _print(workload, "whole run, s", pairs, lambda m: m.seconds)
        _print(workload, "first prediction, s", pairs, lambda m: m.first or 0.0)
        _print(workload, "CPU, s", pairs, lambda m: m.cpu_seconds)
        pairs = _pairs(workload, 2, _OFTEN)
        _print(workload, "peak memory, MB", pairs, lambda m: m.pss)


Pair = Tuple[measure.Measured, measure.Measured]


def _pairs(workload: Workload, number: int, interval: float) -> List[Pair]:
    pairs = []
    for i in range(number):
        names = ["predict", "parallel-predict"]
        measured = {name: run(workload, name, interval) for name in names[:: 1 if i % 2 else -1]}
        pairs.append((measured["predict"], measured["parallel-predict"]))
    return pairs


def _print(
    workload: Workload, what: str, pairs: List[Pair], get: Callable[[measure.Measured], float]
) -> None:
    theirs, ours = ([get(pair[i]) for pair in pairs] for i in (0, 1))
    differences = [b - a for a, b in zip(theirs, ours)]
    spread = f"{median(differences):+.2f} [{min(differences):+.2f}, {max(differences):+.2f}]"
    print(
        f"| {workload.name} | {what} | {median(theirs):.2f} | {median(ours):.2f} | {spread} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
