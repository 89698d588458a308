"""
What Ray costs: `python -m benchmarks.ray_overhead [throughput] [dispatch] [memory]`.

    throughput  of the process pool and of Ray on the same CPUs, in turns, warm: in lines/s, and,
                where other work disturbs that, in lines per second of CPU of all processes
    dispatch    batches/s that one driver can hand out and take back
    memory      of a node with one worker and with four, for a model of 500 MB
"""

import json
import os
import statistics
import sys
import time
from itertools import count
from typing import Any, Dict, List, Tuple

import psutil
import torch
from allennlp.data import DatasetReader, Vocabulary
from allennlp.models import Model
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.messages import Batch, BatchKind, WorkerOptions
from allennlp_parallel_predict.executors import Executor, ProcessPoolExecutor
from allennlp_parallel_predict.executors.ray.executor import RayExecutor
from allennlp_parallel_predict.models.archives import load_predictor
from benchmarks import predictors, report  # noqa: F401  (the predictors are registered)
from benchmarks.workloads import prepare

BATCH_SIZE = 32
WORKERS = 2
PAIRS = 7
BATCHES = 12
"""In one turn of the throughput measurement."""


class NoModel(Model):
    def __init__(self, vocab: Vocabulary) -> None:
        super().__init__(vocab)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, *args: Any) -> Any:  # type: ignore[override]
        raise AssertionError("not used")


class Echo(Predictor):
    """Costs a worker as little as possible."""

    def predict_batch_json(self, inputs: List[Any]) -> List[Any]:
        return inputs


class Lines:
    """Batches of the lines of a workload, over and over."""

    def __init__(self, lines: List[str]) -> None:
        self._lines = lines
        self._numbers = count()

    def next(self) -> Batch:
        number = next(self._numbers)
        start = number * BATCH_SIZE % (len(self._lines) - BATCH_SIZE)
        positions = range(BATCH_SIZE)
        return Batch(
            number, BatchKind.LINES, self._lines[start : start + BATCH_SIZE], positions, positions
        )

    def predict(self, executor: Executor, batches: int) -> float:
        """The seconds that some batches take, from the first one out to the last one in."""
        since = time.monotonic()
        submitted = finished = 0
        while finished < batches:
            while submitted < batches and executor.has_room():
                executor.submit(self.next())
                submitted += 1
            finished += len(executor.collect())
        return time.monotonic() - since


def started(executor: Executor, predictor: Predictor) -> Executor:
    executor.start(predictor, WorkerOptions())
    while executor.counts().alive < executor.num_workers:
        executor.collect(timeout=0.1)
    return executor


def throughput() -> None:
    (workload,) = prepare(["minilm"])
    with open(workload.inputs) as file:
        lines = list(file)
    predictor = load_predictor(str(workload.archive), workload.predictor)
    pool = ProcessPoolExecutor(num_workers=WORKERS)
    with pool.preparing():
        # The pool first, as it forks, and before Ray's threads are there.
        started(pool, predictor)
    pool_processes = processes()
    executor = RayExecutor(address="local", num_workers=WORKERS)
    started(executor, predictor)
    ray_processes = [p for p in processes() if p not in pool_processes] + [psutil.Process()]
    contestants = [
        (pool, Lines(lines), pool_processes),
        (executor, Lines(lines), ray_processes),
    ]
    for contestant, inputs, _ in contestants:
        inputs.predict(contestant, 3 * WORKERS)
    by_time, by_cpu = [], []
    for number in range(PAIRS):
        rates: Dict[Executor, Tuple[float, float]] = {}
        # Those who begin take turns, too.
        for contestant, inputs, its_processes in contestants[:: 1 if number % 2 else -1]:
            before = cpu_seconds(its_processes)
            seconds = inputs.predict(contestant, BATCHES)
            cpu = cpu_seconds(its_processes) - before
            rates[contestant] = (BATCHES * BATCH_SIZE / seconds, BATCHES * BATCH_SIZE / cpu)
        by_time.append(rates[executor][0] / rates[pool][0])
        by_cpu.append(rates[executor][1] / rates[pool][1])
        for name, contestant in (("pool", pool), ("Ray", executor)):
            print(f"{name:4} %6.1f lines/s, %6.1f lines per second of CPU" % rates[contestant])
    print(f"Ray / pool: by time {statistics.median(by_time):.3f} {sorted(by_time)}")
    print(f"Ray / pool: by CPU  {statistics.median(by_cpu):.3f} {sorted(by_cpu)}")
    executor.close()
    pool.close()


def processes() -> List[psutil.Process]:
    return [psutil.Process(), *psutil.Process().children(recursive=True)]


def cpu_seconds(of: List[psutil.Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in of if process.is_running())


def dispatch() -> None:
    executor = RayExecutor(address="local", num_workers=WORKERS)
    line = json.dumps({"sentence": "a sentence of ordinary length, as there are so many " * 2})
    lines = Lines([line + "\n"] * 1000)
    with executor.preparing():
        started(executor, Echo(NoModel(Vocabulary()), DatasetReader()))
        lines.predict(executor, 200)
        driver = [psutil.Process()]
        before = cpu_seconds(driver)
        batches = 3000
        seconds = lines.predict(executor, batches)
        cpu = cpu_seconds(driver) - before
        executor.close()
    print(
        f"{batches / seconds:,.0f} batches/s of {BATCH_SIZE} lines and {len(line)} bytes a line "
        f"({batches * BATCH_SIZE / seconds:,.0f} lines/s) with {WORKERS} workers on the same CPUs; "
        f"the driver's process used {cpu / batches * 1e6:,.0f} microseconds of CPU a batch"
    )


def memory() -> None:
    (workload,) = prepare(["tagger"])
    with open(workload.inputs) as file:
        lines = list(file)[:1000]
    predictor = load_predictor(str(workload.archive), workload.predictor)
    size = sum(p.numel() * p.element_size() for p in predictor._model.parameters())
    print(f"the parameters: {size / 2**20:,.0f} MB")
    for shared in (True, False):
        for workers in (1, 4):
            executor = RayExecutor(
                address="local", num_workers=workers, num_cpus_per_worker=0.25, share_model=shared
            )
            with executor.preparing():
                started(executor, predictor)
                Lines(lines).predict(executor, 4 * workers + 2)
                total, private = _memory_of_node()
                executor.close()
            print(
                f"{workers} workers, share_model {shared}: the node {total:,.0f} MB (PSS), "
                f"of which private to the workers {private / workers:,.0f} MB each",
                flush=True,
            )


def _memory_of_node() -> Any:
    """All processes that Ray has started here: proportional set sizes, and what workers own."""
    total = private = 0.0
    for process in processes()[1:]:
        info = process.memory_full_info()
        total += info.pss / 2**20
        if "RayWorker" in "".join(process.cmdline()):
            private += info.uss / 2**20
    return total, private


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(report.heading(__doc__))
    for name in sys.argv[1:] or ["throughput", "dispatch", "memory"]:
        globals()[name]()
