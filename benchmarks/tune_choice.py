"""
Whether `parallel-tune` finds the fastest settings: its choice against an exhaustive search.

The search tries all numbers of workers, threads, batch sizes and ways of batching that the command
could choose from. Its best three and the command's choice then run again, in turn.
"""

import argparse
import itertools
import sys
from pathlib import Path
from statistics import median
from typing import Dict, List

if __name__ == "__main__":
    # The repository instead of this folder, whose names AllenNLP's search for plugins would find.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from allennlp.common.plugins import import_plugins  # noqa: E402

from allennlp_parallel_predict.commands.tune import sample  # noqa: E402
from allennlp_parallel_predict.common import machine
from allennlp_parallel_predict.data.sources import LineSource  # noqa: E402
from allennlp_parallel_predict.models.archives import load_predictor  # noqa: E402
from allennlp_parallel_predict.pipeline.tuner import BATCH_SIZES  # noqa: E402
from allennlp_parallel_predict.pipeline.tuner import Candidate  # noqa: E402
from allennlp_parallel_predict.pipeline.tuner import Tuner  # noqa: E402
from benchmarks import predictors, report, workloads  # noqa: E402
from benchmarks.workloads import Workload  # noqa: E402

_ROUNDS = 3
PROMISED = 0.95


def grid(cpus: int) -> List[Candidate]:
    """Everything that the command could choose."""
    numbers = sorted({1, *range(2, cpus + 1, 2), cpus})
    return [
        Candidate(workers, threads, size, batching)
        for workers, threads in itertools.product(numbers, numbers)
        for size, batching in itertools.product(BATCH_SIZES, ("in_order", "bucket"))
        if (size, batching) != (1, "bucket")
    ]


def compare(workload: Workload, budget: float, seconds: float) -> str:
    """A row of the table."""
    predictor = load_predictor(str(workload.archive), workload.predictor)
    source = LineSource(str(workload.inputs))
    inputs, cpus = sample(source, 2048), len(machine.usable_cpus())

    def tuner() -> Tuner:
        return Tuner(
            predictor, inputs, source.kind, cpus, tell=lambda text: print(text, file=sys.stderr)
        )

    choice = tuner().search(budget)[0].candidate
    exhaustive = tuner()
    for candidate in grid(cpus):
        exhaustive.attempt(candidate, seconds)
    finalists = list(dict.fromkeys([choice, *(t.candidate for t in exhaustive.ranked()[:3])]))
    rates: Dict[Candidate, List[float]] = {candidate: [] for candidate in finalists}
    for _ in range(_ROUNDS):
        for candidate in finalists:
            rates[candidate].append(tuner().attempt(candidate, 2 * seconds).lines_per_second)
    speeds = {candidate: median(values) for candidate, values in rates.items()}
    best = max(speeds, key=lambda candidate: speeds[candidate])
    return (
        f"| {workload.name} | {_describe(choice)} | {speeds[choice]:,.0f} "
        f"| {_describe(best)} | {speeds[best]:,.0f} | {speeds[choice] / speeds[best]:.2f} |"
    )


def _describe(candidate: Candidate) -> str:
    workers, threads, size, batching = candidate
    return f"{workers} x {threads}, {batching} {size}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().split("\n\n")[0])
    parser.add_argument("--workloads", nargs="+", default=["g2p", "g2p-large", "minilm"])
    parser.add_argument("--budget", type=float, default=60.0, help="seconds for the command")
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="for each measurement of the search"
    )
    args = parser.parse_args()
    import_plugins()
    assert predictors  # registered by its import
    print(report.heading(__doc__))
    print("Workers x threads, batching and batch size; lines/s.\n")
    print("| | chosen | | best of all | | chosen / best |")
    print("|---|---|--:|---|--:|--:|")
    with machine.ready_to_fork():
        for workload in workloads.prepare(args.workloads):
            print(compare(workload, args.budget, args.seconds), flush=True)


if __name__ == "__main__":
    main()
