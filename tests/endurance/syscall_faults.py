"""
Faults by the kernel's own interface, in real runs of the command with real workers:

    python -m tests.endurance.syscall_faults             # or: make syscall-faults

strace (Debian package `strace`; it needs the permission to trace) fails, or sends a signal at, the
N-th call that writes, synchronises, renames, removes, truncates or opens the output, the errors
file or the checkpoint, for every N that the run comes to. After each, `--resume` has to give the
bytes of a calm run. `tests/contract/crash_test.py` does the same within one process.
"""

import argparse
import itertools
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import List

from tests.support.faults import Command, as_line, faulty_archive, numbered, settings, wait_until

CALLS = ("write", "fsync", "rename", "unlink", "ftruncate", "openat", "close")
FAULTS = ("error=EIO", "error=ENOSPC", "error=EINTR", "signal=SIGKILL", "signal=SIGTERM")
FILES = ("output", "errors", "output.checkpoint", "output.checkpoint.tmp")


class Job:
    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.archive = folder, faulty_archive(folder / "archive")
        self.input = folder / "input"
        lines = numbered(count, {n: "raise" for n in range(3, count, 9)})
        self.input.write_text("".join(map(as_line, lines)))
        self.run = folder / "run"
        self.renew()
        assert self.start().wait() == 3
        self.calm = self.outcome()

    def renew(self) -> None:
        shutil.rmtree(self.run, ignore_errors=True)
        self.run.mkdir()

    def start(self, *flags: str, is_stopped: bool = False) -> Command:
        arguments = ["parallel-predict", str(self.archive), str(self.input), "--silent"]
        arguments += ["--predictor", "faulty", "--on-error", "skip", "--batch-size", "4"]
        arguments += ["--include-package", "tests.fixtures.faulty_predictors", *flags]
        arguments += ["--output-file", str(self.run / "output")]
        arguments += ["--errors-file", str(self.run / "errors")]
        arguments += settings(executor_num_workers=2, checkpoint_interval=1e-6)
        return Command(arguments, self.folder, is_stopped=is_stopped)

    def outcome(self) -> List[bytes]:
        names = sorted(path.name for path in self.run.iterdir())
        assert names == ["errors", "output"], names
        errors = (self.run / "errors").read_text().splitlines()
        lines = [line.split(', "traceback"')[0] for line in errors]
        return [(self.run / "output").read_bytes(), "\n".join(lines).encode()]

    def has_fault(self, call: str, fault: str, number: int) -> bool:
        """Runs with a fault at the call of this number; returns whether there was such a call."""
        log = self.folder / "log"
        running = self.start(is_stopped=True)
        paths = [part for name in FILES for part in ("-P", str(self.run / name))]
        inject = f"inject={call}:{fault}:when={number}"
        strace = subprocess.Popen(
            ["strace", "-p", str(running.pid), "-o", str(log), *paths, "-e", inject],
            stderr=subprocess.PIPE,
            universal_newlines=True,
        )
        wait_until(lambda: is_traced(running.pid) or strace.poll() is not None)
        if strace.poll() is not None:
            running.signal(signal.SIGKILL)
            raise SystemExit(f"strace cannot trace: {strace.communicate()[1]}")
        running.signal(signal.SIGCONT)
        status = running.wait()
        strace.communicate(timeout=30)
        assert "Traceback" not in running.stderr, running.stderr
        is_end = status in (-signal.SIGKILL, 143) if "signal" in fault else status == 1
        assert is_end or status == 3, (status, running.stderr)
        return is_end or "(INJECTED)" in log.read_text()


def is_traced(pid: int) -> bool:
    with open(f"/proc/{pid}/status") as file:
        return "TracerPid:\t0\n" not in file.read()


def inject_everywhere(job: Job, call: str, fault: str) -> int:
    """Returns the number of faults, each of which was survived."""
    for number in itertools.count(1):
        job.renew()
        if not job.has_fault(call, fault, number):
            return number - 1
        resumed = job.start("--resume")
        assert resumed.wait() in (0, 3), resumed.stderr  # 0: it was complete already
        assert job.outcome() == job.calm, f"{call} {fault} {number}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lines", type=int, default=16)
    parser.add_argument("--calls", nargs="+", default=CALLS)
    parser.add_argument("--faults", nargs="+", default=FAULTS)
    args = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("strace is not installed: apt install strace")
    total = 0
    with tempfile.TemporaryDirectory() as folder:
        job = Job(Path(folder), args.lines)
        print("| call | " + " | ".join(args.faults) + " |")
        print("|---|" + "--:|" * len(args.faults))
        for call in args.calls:
            counts = [inject_everywhere(job, call, fault) for fault in args.faults]
            print(f"| {call} | " + " | ".join(map(str, counts)) + " |", flush=True)
            total += sum(counts)
    print(f"{total} faults, {args.lines} lines each, resumed after each: 0 lines lost")


if __name__ == "__main__":
    main()
