"""
Scaling past this machine, by simulation: the predictor waits instead of computing.

A batch takes 50 ms, give or take 20 %, and one in 200 takes ten times as long. So hundreds of
workers fit on two cores, and what is measured is whether one parent can keep them all busy.
"""

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

if __name__ == "__main__":
    # The repository instead of this folder, whose names AllenNLP's search for plugins would find.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import report  # noqa: E402
from benchmarks.measure import QUIET  # noqa: E402
from benchmarks.workloads import CACHE, ROOT  # noqa: E402

BATCH_SIZE = 32
SECONDS = 0.05
JITTER = 0.2
STRAGGLERS, SLOWNESS = 1 / 200, 10
PROMISED = {64: 0.98, 256: 0.9}


def write_inputs(path: Path, batches: int) -> List[float]:
    """Writes so many batches of lines; returns how long each of them takes."""
    all_seconds = []
    generator = random.Random(batches)
    with open(path, "w") as file:
        for batch in range(batches):
            seconds = SECONDS * generator.uniform(1 - JITTER, 1 + JITTER)
            if generator.random() < STRAGGLERS:
                seconds *= SLOWNESS
            for offset in range(BATCH_SIZE):
                file.write(f"{batch * BATCH_SIZE + offset} {seconds:.5f}\n")
            all_seconds.append(seconds)
    return all_seconds


def simulate(workers: int, duration: float) -> Dict[str, Any]:
    """Runs a number of workers for about so many seconds."""
    from benchmarks import in_parent
    from benchmarks.predictors import without_model

    inputs, output = CACHE / f"sleep.{workers}.txt", CACHE / f"sleep.{workers}.out"
    mean = SECONDS * (1 + STRAGGLERS * (SLOWNESS - 1))
    waits = write_inputs(inputs, int(workers * duration / mean))
    marks = in_parent.run(without_model("sleeper"), inputs, output, workers, BATCH_SIZE)
    # Without the start, when not all workers have a batch, and the end, when not all have one.
    total = marks[-1][1]
    middle = [mark for mark in marks if 0.1 * total <= mark[1] <= 0.9 * total]
    (start, before, cpu_before, memory_before), (end, after, cpu_after, _) = middle[0], middle[-1]
    speed = (after - before) / (end - start)
    allowed = workers * BATCH_SIZE * len(waits) / sum(waits)
    return {
        "workers": workers,
        "lines_per_second": speed,
        "of_allowed": speed / allowed,
        "parent_cpu_per_1000_lines": 1e3 * (cpu_after - cpu_before) / (after - before),
        "parent_busy": (cpu_after - cpu_before) / (end - start),
        "memory_growth_mb": (max(mark[3] for mark in middle) - memory_before) / (1 << 20),
        "in_order": inputs.read_bytes() == output.read_bytes(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="How many workers one parent can feed.")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    CACHE.mkdir(parents=True, exist_ok=True)
    if args.one:
        print(json.dumps(simulate(args.one, args.seconds)))
        return
    rows: List[Dict[str, Any]] = []
    print(report.heading(__doc__))
    print("| workers | lines/s | of n x 1 worker | promised | of what the waits allow |", end="")
    print(" parent CPU s per 1,000 lines | parent busy | parent grows by MB | in order |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|---|")
    for workers in args.workers:
        command = [sys.executable, "-W", "ignore", __file__, "--one", str(workers)]
        command += ["--seconds", str(args.seconds)]
        env = {**os.environ, **QUIET}
        result = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True)
        row = json.loads(result.stdout.splitlines()[-1])
        rows.append(row)
        # Of what its own waits allow, as each run has drawn other stragglers.
        of_one = row["of_allowed"] / rows[0]["of_allowed"]
        print(
            f"| {workers} | {row['lines_per_second']:,.0f} "
            f"| {of_one:.3f} | {PROMISED.get(workers, '')} "
            f"| {row['of_allowed']:.3f} | {row['parent_cpu_per_1000_lines']:.4f} "
            f"| {row['parent_busy']:.0%} | {row['memory_growth_mb']:.1f} "
            f"| {'yes' if row['in_order'] else 'NO'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
