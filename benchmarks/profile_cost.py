"""
What a profile costs, in pairs: the demo's model in one worker, with and without it in turn.

    python benchmarks/profile_cost.py [--pairs N] [--lines N]

The seconds are CPU seconds of the worker, which other programs on the machine disturb little, and
the seconds of the run.
"""

import argparse
import itertools
import statistics
import sys
import time
from pathlib import Path
from typing import List, Optional, Tuple

import psutil
from allennlp.common.plugins import import_plugins

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from allennlp_parallel_predict.common.messages import BatchKind  # noqa: E402
from allennlp_parallel_predict.common.messages import SLICES  # noqa: E402
from allennlp_parallel_predict.common.messages import SUMS  # noqa: E402
from allennlp_parallel_predict.common.messages import WorkerOptions  # noqa: E402
from allennlp_parallel_predict.data.batching import InOrderBatching  # noqa: E402
from allennlp_parallel_predict.data.sources import LineSource  # noqa: E402
from allennlp_parallel_predict.executors import ProcessPoolExecutor  # noqa: E402
from allennlp_parallel_predict.models.archives import load_predictor  # noqa: E402
from benchmarks import report  # noqa: E402


def run(lines: int, batch_size: int, detail: Optional[str]) -> Tuple[float, float]:
    """CPU seconds of the worker and seconds of the run, after a first batch."""
    executor = ProcessPoolExecutor(num_workers=1, threads_per_worker=1)
    source = LineSource(str(ROOT / "examples" / "g2p" / "words.jsonl"))
    batching = InOrderBatching(batch_size)
    inputs = itertools.islice(source, lines)
    batches = [batch for batch in batching.batches(inputs, BatchKind.LINES) if batch is not None]
    with executor.preparing():
        predictor = load_predictor(str(ROOT / "examples" / "g2p" / "model.tar.gz"))
        executor.start(predictor, WorkerOptions(profile=detail))
        executor.submit(batches[0]._replace(number=0))
        while not executor.is_idle():
            executor.collect()
        (worker,) = psutil.Process().children()
        cpu, start = sum(worker.cpu_times()[:2]), time.monotonic()
        for number, batch in enumerate(batches, start=1):
            while not executor.has_room():
                executor.collect()
            executor.submit(batch._replace(number=number))
        while not executor.is_idle():
            executor.collect()
        seconds = time.monotonic() - start, sum(worker.cpu_times()[:2]) - cpu
        executor.close()
    return seconds[1], seconds[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--lines", type=int, default=1400)
    args = parser.parse_args()
    import_plugins()
    print(report.heading(__doc__))
    for batch_size in (1, 32):
        for title, detail in (("off again", None), ("--profile", SUMS), ("with timeline", SLICES)):
            ratios: List[Tuple[float, float]] = []
            for pair in range(args.pairs):
                order = (None, detail) if pair % 2 else (detail, None)
                first, second = (run(args.lines, batch_size, which) for which in order)
                off, on = (first, second) if pair % 2 else (second, first)
                ratios.append((on[0] / off[0], on[1] / off[1]))
            cpu, wall = (statistics.median(column) - 1 for column in zip(*ratios))
            print(
                f"* batches of {batch_size:3}, {title:14} CPU {cpu:+.1%}, time {wall:+.1%} "
                f"(medians of {args.pairs} pairs)",
                flush=True,
            )


if __name__ == "__main__":
    main()
