"""
What workers cost in memory, with an archive of 500 MB, as `allennlp predict` needs it once.

Proportional set sizes: a page that n processes share counts 1/n in each, so the sum over all
processes is what the machine really has to have.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, List, Tuple

if __name__ == "__main__":
    # The repository instead of this folder, whose names AllenNLP's search for plugins would find.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measure, report, workloads  # noqa: E402
from benchmarks.contestants import Contestant  # noqa: E402
from benchmarks.workloads import CACHE, Workload  # noqa: E402

_INTERVAL = 0.2
MB = 1 << 20
TAGGER_MB = workloads.EMBEDDINGS[0] * workloads.EMBEDDINGS[1] * 4 / MB
WIDE_MB = workloads.WIDTH**2 * 4 / MB


def measure_one(workload: Workload, lines: int, workers: int, **settings: Any) -> measure.Measured:
    subcommand = "parallel-predict" if settings else "predict"
    contestant = Contestant("", "", None, subcommand, settings=settings or None)
    inputs, output = workload.head(lines), CACHE / "memory.out"
    command = contestant.command(workload.archive, workload.predictor, inputs, output, workers)
    return measure.run_well(command, output, memory_interval=_INTERVAL)


def main() -> None:
    parser = argparse.ArgumentParser(description="What workers cost in memory.")
    parser.add_argument("--lines", type=int, default=4096, help="for each worker")
    args = parser.parse_args()
    large, wide, small = workloads.prepare(["tagger", "wide", "g2p"])
    print(report.heading(__doc__))
    print("| | workers | peak MB | MB while predicting | each further worker | time to first |")
    print("|---|--:|--:|--:|--:|--:|")
    predict = measure_one(large, args.lines, 1)
    _print("tagger, allennlp predict", 1, predict, "")
    forked, four_forked = _series(large, "fork", [1, 2, 4], args.lines)
    with_vocabulary, four_spawned = _series(large, "spawn", [1, 4], args.lines)
    # Where the parameters are in one matrix, and not in a vocabulary of 400,000 words as well.
    spawned, _ = _series(wide, "spawn", [1, 4], args.lines // 4)
    # A spawned worker has to import AllenNLP again, whatever the model is.
    empty, _ = _series(small, "spawn", [1, 2], 698)
    more = (spawned - empty) / WIDE_MB, (with_vocabulary - empty) / TAGGER_MB
    all_spawned = four_spawned / predict.steady_pss
    print(
        f"""
* Each further forked worker: {forked:.0f} MB (promised: at most 60).
* 4 forked workers / one predict: {four_forked / predict.steady_pss:.2f} (promised: 1.40).
* Each further spawned worker: {spawned:.0f} MB with a matrix of {WIDE_MB:.0f} MB, {empty:.0f} MB
  with the demo's tiny model; the difference is {more[0]:.1%} of the matrix (promised: 15 %).
* With the tagger it is {with_vocabulary:.0f} MB, {more[1]:.1%} of its embeddings more, and 4
  spawned workers are {all_spawned:.2f} predicts: the embeddings are shared, but the vocabulary of
  400,000 words is Python objects, which only a fork can share."""
    )


def _series(workload: Workload, method: str, counts: List[int], lines: int) -> Tuple[float, float]:
    """What each further worker costs, and what the most of them cost together, in MB."""
    steady: List[float] = []
    for workers in counts:
        key = {"executor.start_method": method}
        measured = measure_one(workload, min(8192, lines * workers), workers, **key)
        steady.append(measured.steady_pss)
        further = (steady[-1] - steady[0]) / max(1, workers - counts[0])
        further_text = f"{further:.0f}" if len(steady) > 1 else ""
        _print(f"{workload.name}, {method}", workers, measured, further_text)
    return further, steady[-1]


def _print(title: str, workers: int, measured: measure.Measured, further: str) -> None:
    print(
        f"| {title} | {workers} | {measured.pss:,.0f} | {measured.steady_pss:,.0f} | {further} "
        f"| {measured.first:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
