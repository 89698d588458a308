"""
Does the pool keep its promise that nothing is lost? Predicts a file with bad lines in it twice:
calmly, and while workers are killed, stopped and slowed down at random moments and the parent is
killed, interrupted and resumed; then compares everything.

    python benchmarks/chaos.py                   # some minutes
    python benchmarks/chaos.py --short
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
from chaos_inputs import write_input  # noqa: E402

EXAMPLE = HERE.parent / "examples" / "g2p"

BATCH_TIMEOUT = 3.0
CAREFUL = {
    "executor.num_workers": 2,
    "executor.batch_timeout": BATCH_TIMEOUT,
    "executor.max_retries": 3,
    "checkpoint_interval": 0.5,
}
COMPLETE = (0, 3)
PARENT_FAULTS = [
    ("the parent is killed (SIGKILL)", signal.SIGKILL),
    ("the parent is killed, its last write torn", signal.SIGKILL),
    ("the parent is interrupted (Ctrl-C)", signal.SIGINT),
    ("the parent is ended (SIGTERM)", signal.SIGTERM),
]


class Command:
    """The command in a fork of this process, which spares it the seconds that imports take."""

    def __init__(self, folder: Path, name: str, settings: Dict[str, Any], *flags: str) -> None:
        self.output, self.errors = folder / name, folder / f"{name}.errors"
        self.stderr = folder / f"{name}.stderr"
        arguments = ["parallel-predict", str(EXAMPLE / "model.tar.gz"), str(folder / "input")]
        arguments += ["--output-file", str(self.output), "--silent", "--batch-size", "4"]
        arguments += ["--predictor", "chaos", "--include-package", "chaos_predictor"]
        arguments += ["--parallel-overrides", json.dumps(settings), *flags]
        self.pid = os.fork()
        if self.pid == 0:
            _be_command(arguments, self.stderr)
        self.process = psutil.Process(self.pid)

    def workers(self) -> List[psutil.Process]:
        try:
            return [p for p in self.process.children() if p.name() == self.process.name()]
        except psutil.NoSuchProcess:
            return []

    def poll(self) -> Optional[int]:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

    def wait(self) -> int:
        while True:
            status = self.poll()
            if status is not None:
                return status
            time.sleep(0.01)

    def lines(self) -> int:
        return self.output.read_bytes().count(b"\n") if self.output.exists() else 0


def _be_command(arguments: List[str], stderr: Path) -> None:
    status = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(0, 1)
        os.dup2(os.open(stderr, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), 2)
        sys.argv = ["allennlp", *arguments]
        from allennlp_parallel_predict.__main__ import main

        main()
        status = 0
    except SystemExit as exit:
        status = int(exit.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        sys.stderr.flush()
        os._exit(status)


class Chaos:
    """Injects faults into a run until it is complete."""

    def __init__(self, folder: Path, rng: random.Random, total: int, parent_faults: int) -> None:
        self._folder, self._rng = folder, rng
        # At a random place in each part of the output, so that each run comes some way.
        self._parent_faults = [
            (int(total * (n + rng.uniform(0.2, 0.9)) / (parent_faults + 1)), PARENT_FAULTS[n % 4])
            for n in range(parent_faults)
        ]
        self.injected: Counter = Counter()
        self.problems: List[str] = []
        self._slowed: List[Tuple[float, psutil.Process]] = []

    def run(self) -> Command:
        flags = ["--on-error", "placeholder", "--errors-file", str(self._folder / "chaos.errors")]
        resume: List[str] = []
        while True:
            command = Command(self._folder, "chaos", CAREFUL, *flags, *resume)
            status = self._disturb(command)
            if status in COMPLETE:
                return command
            last_words = command.stderr.read_text()[-3000:]
            if status == 1 and "third time in a row" in last_words:
                # By design; the more faults a second, the likelier without any real cause.
                self.injected["three deaths in a row: the run ends, and is resumed"] += 1
            elif status not in (-signal.SIGKILL, 130, 143):
                raise SystemExit(f"exit status {status}:\n{last_words}")
            resume = ["--resume"]

    def _disturb(self, command: Command) -> int:
        next_fault = time.monotonic() + 0.5
        while True:
            status = command.poll()
            if status is not None:
                return status
            now = time.monotonic()
            self._wake_slowed(now)
            if now >= next_fault:
                next_fault = now + self._rng.expovariate(1.0)
                self._disturb_worker(command, now)
            if self._parent_faults and command.lines() >= self._parent_faults[0][0]:
                return self._disturb_parent(command)
            time.sleep(0.01)

    def _disturb_worker(self, command: Command, now: float) -> None:
        workers = command.workers()
        if not workers:
            return
        worker = self._rng.choice(workers)
        fault = self._rng.choices(
            ["killed (SIGKILL)", "stopped", "slowed", "SIGSEGV"], [6, 1, 6, 2]
        )
        try:
            if fault == ["slowed"]:
                worker.suspend()
                self._slowed.append((now + self._rng.uniform(0.1, 1.0), worker))
            elif fault == ["stopped"]:
                worker.suspend()
            else:
                worker.send_signal(signal.SIGSEGV if fault == ["SIGSEGV"] else signal.SIGKILL)
            self.injected[f"a worker is {fault[0]}".replace("is SIGSEGV", "gets SIGSEGV")] += 1
        except psutil.NoSuchProcess:
            pass

    def _wake_slowed(self, now: float) -> None:
        for item in [item for item in self._slowed if item[0] <= now]:
            self._slowed.remove(item)
            try:
                item[1].resume()
            except psutil.NoSuchProcess:
                pass

    def _disturb_parent(self, command: Command) -> int:
        _, (name, number) = self._parent_faults.pop(0)
        workers = command.workers()
        os.kill(command.pid, number)
        status = command.wait()
        if status in COMPLETE:
            return status
        self.injected[name] += 1
        deadline = time.monotonic() + 2
        while any(map(_lives, workers)) and time.monotonic() < deadline:
            time.sleep(0.02)
        if any(map(_lives, workers)):
            self.problems.append(f"workers outlived their parent ({name})")
        if "torn" in name:
            for path in (command.output, command.errors):
                with path.open("ab") as file:
                    file.write(self._rng.choice([b"\0" * 4096, b'{"line": 7, "inp', b"\n\n"]))
        return status


def _lives(process: psutil.Process) -> bool:
    try:  # whoever adopts a killed parent's workers may take its time to reap them
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def comparable(path: Path) -> List[Any]:
    """
    The lines, without what may differ from run to run: process ids, tracebacks, and whether a
    worker died over a line that hangs it or was ended.
    """
    lines = []
    for line in path.read_text("utf-8").split("\n"):
        if line.startswith(('{"error"', '{"line"')):
            record = json.loads(line)
            record = record.get("error", record)
            error_type = record["type"].replace("WorkerTimeout", "WorkerDied")
            lines.append((record["line"], error_type, record.get("input")))
        else:
            lines.append(line)
    return lines


def compare(calm: Command, chaos: Command) -> List[str]:
    problems = []
    for ours, theirs, name in (
        (chaos.output, calm.output, "output"),
        (chaos.errors, calm.errors, "errors file"),
    ):
        mine, other = comparable(ours), comparable(theirs)
        if mine != other:
            pairs = enumerate(zip(mine, other), 1)
            first = next((n for n, (a, b) in pairs if a != b), min(len(mine), len(other)) + 1)
            problems.append(
                f"the {name} differs: {len(mine)} lines, {len(other)} when calm; first at {first}: "
                f"{str(mine[first - 1 : first])[:200]}, calm {str(other[first - 1 : first])[:200]}"
            )
    return problems


def run_chaos(seed: int, count: int, parent_faults: int, hanging: int) -> bool:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tmp").mkdir()
        tempfile.tempdir = str(folder / "tmp")
        shared_memory = set(os.listdir("/dev/shm"))
        injected = write_input(folder / "input", EXAMPLE / "words.jsonl", count, rng, hanging)
        started = time.monotonic()
        flags = ["--on-error", "placeholder", "--errors-file", str(folder / "calm.errors")]
        calm = Command(folder, "calm", CAREFUL, *flags)
        assert calm.wait() in COMPLETE, calm.stderr.read_text()[-3000:]
        calm_seconds, started = time.monotonic() - started, time.monotonic()
        chaos = Chaos(folder, rng, calm.lines(), parent_faults)
        command = chaos.run()
        seconds = time.monotonic() - started
        problems = chaos.problems + compare(calm, command)
        time.sleep(0.2)
        if psutil.Process().children(recursive=True):
            problems.append(f"left running: {psutil.Process().children(recursive=True)}")
        left = [p.name for p in folder.iterdir() if "checkpoint" in p.name]
        left += os.listdir(folder / "tmp") + list(set(os.listdir("/dev/shm")) - shared_memory)
        problems += [f"left behind: {', '.join(left)}"] * bool(left)
        lost = len(comparable(command.errors)) - 1
        tempfile.tempdir = None
    print(f"seed {seed}: {count:,} lines, {calm_seconds:.0f} s calm, {seconds:.0f} s in chaos")
    injected.update(chaos.injected)
    print("\n| fault | injected |\n|---|---:|")
    for fault, number in sorted(injected.items()):
        print(f"| {fault} | {number} |")
    print(f"\nlines that failed, in both runs: {lost}")
    for problem in problems:
        print(f"PROBLEM: {problem}")
    if not problems:
        print(
            f"all {sum(injected.values())} survived: the same output and errors, nothing left over"
        )
    return not problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lines", type=int)
    parser.add_argument("--short", action="store_true")
    args = parser.parse_args()

    # Here, so that the forks need not; and the package first, for its shims.
    import allennlp_parallel_predict  # noqa: F401
    import torch

    torch.set_num_threads(1)
    import chaos_predictor  # noqa: F401

    if args.short:
        sys.exit(not run_chaos(args.seed, args.lines or 2000, parent_faults=4, hanging=0))
    else:
        sys.exit(not run_chaos(args.seed, args.lines or 12_000, parent_faults=10, hanging=2))


if __name__ == "__main__":
    main()
