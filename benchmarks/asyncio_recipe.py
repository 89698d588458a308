"""
The popular asyncio recipe beside `AsyncPredictor`: 64 concurrent callers, each of whom awaits one
prediction after the other, with the large beam search.

    python -m benchmarks.asyncio_recipe [--quick] [--output results.json]

Each contestant runs in a process of its own, with the CPUs that this one may use:

    gather            `gather` around `Predictor.predict_json`, in the event loop
    gather, 1 thread  the same with one thread of torch's, which is often faster
    to_thread         in threads, by `run_in_executor`, which is what `asyncio.to_thread` does
    AsyncPredictor    batches of up to 32, as many workers as CPUs

Calls that are predicted together need not be exact, and so `AsyncPredictor`'s workers let MKL use
AVX2 on AMD's CPUs, which the others do by `MKL_DEBUG_CPU_TYPE=5` in the environment alone.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from typing import Any, Awaitable, Callable, Dict, List

import torch

from benchmarks import report
from benchmarks.workloads import ROOT, prepare

CALLERS = 64
Predict = Callable[[Dict[str, Any]], Awaitable[Any]]


async def call(predict: Predict, inputs: List[Dict[str, Any]]) -> Dict[str, float]:
    """Lets the callers take turns at the inputs; returns what they and the loop saw."""
    latencies: List[float] = []
    late: List[float] = []
    remaining = iter(inputs)

    async def caller() -> None:
        for item in remaining:
            start = time.perf_counter()
            await predict(item)
            latencies.append(time.perf_counter() - start)

    async def ticker() -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            late.append(time.perf_counter() - start - 0.001)

    await predict(inputs[0])
    ticking = asyncio.ensure_future(ticker())
    await asyncio.sleep(0.01)
    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    seconds = time.perf_counter() - start
    ticking.cancel()
    percentiles = statistics.quantiles(latencies, n=100)
    return {
        "inputs": len(inputs),
        "inputs_per_second": len(inputs) / seconds,
        "p50": percentiles[49],
        "p95": percentiles[94],
        "p99": percentiles[98],
        "ticker_p99": statistics.quantiles(late + [0.0, 0.0], n=100)[98],
    }


async def gather(archive: str, inputs: List[Dict[str, Any]]) -> Dict[str, float]:
    from allennlp.predictors import Predictor

    predictor = Predictor.from_path(archive)

    async def predict(item: Dict[str, Any]) -> Any:
        return predictor.predict_json(item)

    return await call(predict, inputs)


async def gather_with_one_thread(archive: str, inputs: List[Dict[str, Any]]) -> Dict[str, float]:
    torch.set_num_threads(1)
    return await gather(archive, inputs)


async def to_thread(archive: str, inputs: List[Dict[str, Any]]) -> Dict[str, float]:
    from allennlp.predictors import Predictor

    torch.set_num_threads(1)  # in each thread of the executor's, that is
    predictor = Predictor.from_path(archive)
    loop = asyncio.get_running_loop()

    async def predict(item: Dict[str, Any]) -> Any:
        return await loop.run_in_executor(None, predictor.predict_json, item)

    return await call(predict, inputs)


async def async_predictor(archive: str, inputs: List[Dict[str, Any]]) -> Dict[str, float]:
    from allennlp_parallel_predict import AsyncPredictor

    async with AsyncPredictor.from_path(archive) as predictor:
        return await call(predictor.predict_json, inputs)


CONTESTANTS = {
    "gather": gather,
    "gather, 1 thread": gather_with_one_thread,
    "to_thread": to_thread,
    "AsyncPredictor": async_predictor,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--quick", action="store_true", help="a few inputs only")
    parser.add_argument("--output", help="a file for the figures, as JSON")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    (large,) = prepare(["g2p-large"])
    # The recipe is several times slower, and its rate does not hang on the number of inputs.
    if args.contestant:
        count = 2048 if args.contestant == "AsyncPredictor" else 512
        count = count // 4 if args.quick else count
        inputs = [json.loads(line) for line in open(large.head(count))]
        result = asyncio.run(CONTESTANTS[args.contestant](str(large.archive), inputs))
        print("RESULT " + json.dumps(result))
        return
    results = {}
    for name in CONTESTANTS:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.asyncio_recipe"]
        command += ["--contestant", name] + ["--quick"] * args.quick
        run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
        (line,) = [x for x in run.stdout.decode().splitlines() if x.startswith("RESULT ")]
        results[name] = json.loads(line[len("RESULT ") :])
    print(report.heading(__doc__))
    print(
        "| | inputs/s | | p50 | p95 | p99 | 1 ms ticker, p99 late |\n|---|---|---|---|---|---|---|"
    )
    for name, r in results.items():
        times = r["inputs_per_second"] / results["gather"]["inputs_per_second"]
        waits = " | ".join(f"{r[p] * 1000:,.0f} ms" for p in ("p50", "p95", "p99", "ticker_p99"))
        print(f"| {name} | {r['inputs_per_second']:.1f} | {times:.2f}x | {waits} |")
    if args.output:
        with open(args.output, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
