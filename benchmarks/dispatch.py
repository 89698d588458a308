"""
The dispatch ceiling: how many lines a second a pool can deal out and take back, in order.

The predictor gives back what it gets, so all that is measured is the pool: reading the file,
batches of 32 lines to two workers and back, and writing the file. Workers are up and warm. All
pools call the same predictor in the same way, and describe each input in JSON, as `predict` does
(it fails at what cannot be).

`multiprocessing.Pool` reads the whole input ahead, however large it is. This pool queues one more
batch per worker; results come back one by one, so that a dead worker costs one batch.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from functools import lru_cache
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, Iterable, Iterator, List

if __name__ == "__main__":
    # The repository instead of this folder, whose names AllenNLP's search for plugins would find.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import report  # noqa: E402
from benchmarks.contestants import common  # noqa: E402
from benchmarks.measure import QUIET  # noqa: E402
from benchmarks.workloads import CACHE, ROOT  # noqa: E402

WORKERS = 2
BATCH_SIZE = 32
WARM_UP = 50
"""Batches."""

Batch = List[str]
Map = Callable[[Iterable[Batch]], Iterable[Batch]]
"""Sends batches through a pool; gives them back in order."""


@lru_cache(maxsize=None)
def predictor() -> Any:
    from benchmarks.predictors import without_model

    return without_model("echo")


def echo(batch: Batch) -> Batch:
    outputs = common.predict(predictor(), batch)
    for line in batch:
        json.dumps(line)
    return outputs


def multiprocessing_pool(measure: Callable[[Map], None]) -> None:
    import multiprocessing

    with multiprocessing.Pool(WORKERS) as pool:
        measure(lambda batches: pool.imap(echo, batches))


def futures(measure: Callable[[Map], None]) -> None:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        measure(lambda batches: pool.map(echo, batches))


def pebble(measure: Callable[[Map], None]) -> None:
    from pebble import ProcessPool

    with ProcessPool(max_workers=WORKERS) as pool:
        measure(lambda batches: pool.map(echo, batches).result())


CONTESTANTS: Dict[str, Callable[[Callable[[Map], None]], None]] = {
    function.__name__: function for function in (multiprocessing_pool, futures, pebble)
}


def measure_ours(inputs: Path, output: Path) -> float:
    from benchmarks import in_parent

    marks = in_parent.run(predictor(), inputs, output, WORKERS, BATCH_SIZE)
    (start, already, _, _), (end, lines, _, _) = marks[0], marks[-1]
    return (lines - already) / (end - start)


def measure_other(name: str, inputs: Path, output: Path) -> float:
    speeds = []

    def batches() -> Iterator[Batch]:
        with open(inputs) as lines:
            while True:
                batch = list(islice(lines, BATCH_SIZE))
                if not batch:
                    return
                yield batch

    predictor()  # imported before the pool is started: a forked worker then has it

    def measure(mapped: Map) -> None:
        list(mapped(islice(batches(), WARM_UP)))
        start, done = time.monotonic(), 0
        with open(output, "w") as file:
            for batch in mapped(batches()):
                file.writelines(batch)
                done += len(batch)
        speeds.append(done / (time.monotonic() - start))

    CONTESTANTS[name](measure)
    return speeds[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast a pool can deal out batches.")
    parser.add_argument("--lines", type=int, default=400_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=["ours", *CONTESTANTS])
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    inputs, output = CACHE / f"echo.{args.lines}.txt", CACHE / "echo.out"
    if args.one:
        ours = args.one == "ours"
        speed = measure_ours(inputs, output) if ours else measure_other(args.one, inputs, output)
        print(json.dumps([speed, output.read_bytes() == inputs.read_bytes()]))
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    text = '{"sentence": "This is line number %d, and it is as long as lines are."}\n'
    inputs.write_text("".join(text % number for number in range(args.lines)))
    names = args.only or ["ours", *CONTESTANTS]
    speeds: Dict[str, List[float]] = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            speeds[name] += _run(name, args.lines)
    print(report.heading(__doc__))
    print("| | lines/s | smallest | largest | n |\n|---|--:|--:|--:|--:|")
    for name, values in speeds.items():
        if values:
            figures = " | ".join(f"{f(values):,.0f}" for f in (median, min, max))
            print(f"| {name} | {figures} | {len(values)} |")
        else:
            print(f"| {name} | fails | | | 0 |")


def _run(name: str, lines: int) -> List[float]:
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, "--lines", str(lines)]
    env = {**os.environ, **QUIET}
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)
    if result.returncode:
        print(f"{name}: {result.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return []
    speed, is_same = json.loads(result.stdout.splitlines()[-1])
    if not is_same:
        sys.exit(f"{name} gives other lines, or another order")
    print(f"{name}: {speed:,.0f} lines/s", file=sys.stderr, flush=True)
    return [speed]


if __name__ == "__main__":
    # What a script defines travels by value, with all that it refers to: import it instead.
    from benchmarks import dispatch

    dispatch.main()
