"""
Uses the package for as long as you like, and fails when something grows that must not:

    python -m tests.endurance.soak --seconds 3600        # or: make soak

In one process, over and over: a pool that stays open and predicts; pools that are opened, lose
workers and are closed; the command with bad lines and killed workers, interrupted and resumed, its
output held against a calm run's. After each round it counts, at rest, the memory of this process
and of the workers that stay, file descriptors, threads, processes, and what is left in the
temporary folder and in /dev/shm.
"""

import argparse
import contextlib
import gc
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Dict, Iterator, List, Sequence

import psutil

from allennlp_parallel_predict import ParallelPredictor
from tests.support.faults import Command, command, faulty_archive, numbered, settings, wait_until
from tests.support.faults import as_line
from tests.support.pools import ARCHIVE, WORDS, faulty, numbers
from tests.support.running import workers

Sample = Dict[str, int]

COUNTED = ("file descriptors", "files of workers", "threads", "processes", "temporary files")
"""What has to be the same after each round."""
MEASURED = ("memory", "memory of workers")
"""What varies a little, in bytes."""
SLACK = 16 << 20
WARM_UP = 0.25
"""The part of the time in which caches may still fill."""


class Soak:
    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder, self.rng = folder, rng
        self.counts = {"predictions": 0, "runs": 0, "interrupted": 0, "killed workers": 0}
        self.archive = faulty_archive(folder)
        self.tmp = folder / "tmp"
        self.tmp.mkdir()
        tempfile.tempdir = str(self.tmp)
        self.shared_memory = set(os.listdir("/dev/shm"))
        self._write_input()

    def _write_input(self) -> None:
        faults: Dict[int, Any] = {n: "raise" for n in range(7, 300, 50)}
        faults.update({n: "kill" for n in range(30, 300, 90)})
        faults.update({n: {"pad": 100_000} for n in range(3, 300, 40)})
        lines = numbered(300, faults)
        (self.folder / "input").write_text("".join(map(as_line, lines)))
        with self._command("calm") as calm:
            assert calm.wait() == 3, calm.stderr
        self.calm = (self.folder / "calm").read_bytes()

    @contextlib.contextmanager
    def _command(self, output: str, *flags: str) -> Iterator[Command]:
        more = settings(executor_num_workers=2, checkpoint_interval=0.05)
        more += ["--output-file", str(self.folder / output), "--batch-size", "4", "--silent"]
        more += ["--on-error", "skip", *flags]
        with command(self.archive, self.folder / "input", *more, folder=self.folder) as running:
            yield running

    def round(self, calm_pool: ParallelPredictor) -> None:
        outputs = calm_pool.predict_batch_json(WORDS, batch_size=8)
        assert [len(output) > 0 for output in outputs] == [True] * len(WORDS)
        self.counts["predictions"] += len(outputs)
        self._pool_that_loses_workers()
        self._command_that_is_interrupted()

    def _pool_that_loses_workers(self) -> None:
        stay = set(workers())
        with faulty(max_retries=20) as pool:
            for number in range(3):
                items = [{"n": n, "do": "sleep", "seconds": 0.001} for n in range(40)]
                stream = pool.predict_stream(items)
                first = next(stream)
                victims = [worker for worker in workers() if worker not in stay]
                self.rng.choice(victims).kill()
                self.counts["killed workers"] += 1
                assert numbers([first, *stream]) == list(range(40))
                self.counts["predictions"] += 40

    def _command_that_is_interrupted(self) -> None:
        status, more = None, ["--overwrite"]
        while status not in (0, 3):  # 0: it was complete when it was killed
            with self._command("output", *more) as running:
                if more == ["--overwrite"]:
                    # Not while AllenNLP is imported, where a signal is Python's to handle.
                    checkpoint = self.folder / "output.checkpoint"
                    wait_until(lambda: checkpoint.exists() or running.has_ended())
                    time.sleep(self.rng.uniform(0.0, 0.4))
                    running.signal(self.rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGKILL]))
                status = running.wait()
            assert status in (0, 3, 130, 143, -signal.SIGKILL), running.stderr
            self.counts["runs"] += 1
            self.counts["interrupted"] += status not in (0, 3)
            more = ["--resume"]
        assert (self.folder / "output").read_bytes() == self.calm

    def sample(self) -> Sample:
        gc.collect()
        me, staying = psutil.Process(), workers()
        left = [*os.listdir(self.tmp), *set(os.listdir("/dev/shm")) - self.shared_memory]
        return {
            "file descriptors": me.num_fds(),
            "files of workers": sum(worker.num_fds() for worker in staying),
            "threads": me.num_threads(),
            "processes": len(staying),
            "temporary files": len(left),
            "memory": me.memory_full_info().uss,
            "memory of workers": sum(worker.memory_full_info().uss for worker in staying),
        }


def grown(samples: Sequence[Sample]) -> List[str]:
    """What has grown since the samples were warm, in words."""
    warm = samples[int(len(samples) * WARM_UP) :]
    problems = []
    for what in COUNTED:
        values = [sample[what] for sample in warm]
        if values[-1] > min(values):
            problems.append(f"{what}: {values[0]} at first, {values[-1]} at the end")
    part = max(1, len(warm) // 3)
    for what in MEASURED:
        before, after = (
            median(sample[what] for sample in some) for some in (warm[:part], warm[-part:])
        )
        if after > before * 1.05 + SLACK:
            problems.append(f"{what}: {before / 2**20:,.0f} MB, then {after / 2**20:,.0f} MB")
    return problems


def at_rest(soak: Soak, staying: int) -> Sample:
    """A sample when whatever was killed or closed is gone."""
    wait_until(lambda: len(workers()) == staying)
    return soak.sample()


def run(seconds: float, seed: int) -> int:
    samples: List[Sample] = []
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as name:
        soak = Soak(Path(name), random.Random(seed))
        with ParallelPredictor.from_path(str(ARCHIVE), num_workers=2) as calm_pool:
            while time.monotonic() < end or len(samples) < 4:
                soak.round(calm_pool)
                samples.append(at_rest(soak, staying=2))
        tempfile.tempdir = None
    for what in (*COUNTED, *MEASURED):
        unit, name = (2**20, " (MB)") if what in MEASURED else (1, "")
        first, last = samples[int(len(samples) * WARM_UP)][what], samples[-1][what]
        most = max(sample[what] for sample in samples)
        print(f"{what + name:25} {first / unit:8.0f} {last / unit:8.0f} {most / unit:8.0f}")
    print(f"{len(samples)} rounds in {seconds:.0f} s; warm, last and most of each are above")
    print(", ".join(f"{number:,} {what}" for what, number in soak.counts.items()))
    problems = grown(samples)
    for problem in problems:
        print(f"GROWS: {problem}")
    return 1 if problems else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    sys.exit(run(args.seconds, args.seed))


if __name__ == "__main__":
    main()
