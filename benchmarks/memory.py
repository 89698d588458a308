"""
What workers cost in memory, with an archive of 500 MB, as `allennlp predict` needs it once.

Proportional set sizes: a page that n processes share counts 1/n in each, so the sum over all
processes is what the machine really has to have.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, List

if __name__ == "__main__":
    # The repository instead of this folder, whose names AllenNLP's search for plugins would find.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measure, report, workloads  # noqa: E402
from benchmarks.contestants import Contestant  # noqa: E402
from benchmarks.workloads import CACHE, Workload  # noqa: E402

_INTERVAL = 0.2
MODEL_MB = workloads.EMBEDDINGS[0] * workloads.EMBEDDINGS[1] * 4 / (1 << 20)


def measure_one(workload: Workload, lines: int, workers: int, **settings: Any) -> measure.Measured:
    subcommand = "parallel-predict" if settings else "predict"
    contestant = Contestant("", "", None, subcommand, settings=settings or None)
    inputs, output = workload.head(lines), CACHE / "memory.out"
    command = contestant.command(workload.archive, workload.predictor, inputs, output, workers)
    measured = measure.run(command, output, memory_interval=_INTERVAL)
    if measured.outcome != "ok":
        sys.exit(f"{' '.join(command)}: {measured.outcome} {measured.note}")
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description="What workers cost in memory.")
    parser.add_argument("--lines", type=int, default=4096, help="for each worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    args = parser.parse_args()
    large, small = workloads.prepare(["tagger", "g2p"])
    print(report.heading(__doc__))
    print("| | workers | peak MB | MB while predicting | each further worker | time to first |")
    print("|---|--:|--:|--:|--:|--:|")
    predict = measure_one(large, args.lines, 1)
    _print("allennlp predict", 1, predict, "")
    steady: Dict[str, List[float]] = {}
    most = max(args.workers)
    for method in ("fork", "spawn"):
        for workers in args.workers:
            key = {"executor.start_method": method}
            measured = measure_one(large, min(8192, args.lines * workers), workers, **key)
            steady.setdefault(method, []).append(measured.steady_pss)
            further = ""
            if workers > args.workers[0]:
                more = measured.steady_pss - steady[method][0]
                further = f"{more / (workers - args.workers[0]):.0f}"
            _print(f"parallel-predict, {method}", workers, measured, further)
    # A spawned worker has to import AllenNLP again, whatever the model is.
    key = {"executor.start_method": "spawn"}
    one, two = (measure_one(small, 1397, workers, **key).steady_pss for workers in (1, 2))
    further = {m: (v[-1] - v[0]) / (most - args.workers[0]) for m, v in steady.items()}
    print(f"\nThe model has {MODEL_MB:.0f} MB of embeddings.\n")
    print(f"* Each further forked worker: {further['fork']:.0f} MB (promised: at most 60).")
    print(
        f"* Each further spawned worker: {further['spawn']:.0f} MB, one with a tiny model: "
        f"{two - one:.0f} MB; the difference is {(further['spawn'] - two + one) / MODEL_MB:.1%} of "
        "the model (promised: at most 15 %)."
    )
    for method, values in steady.items():
        ratio = values[-1] / predict.steady_pss
        print(f"* {most} workers / one predict, {method}: {ratio:.2f} (promised for 4: 1.40).")


def _print(title: str, workers: int, measured: measure.Measured, further: str) -> None:
    print(
        f"| {title} | {workers} | {measured.pss:,.0f} | {measured.steady_pss:,.0f} | {further} "
        f"| {measured.first:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
