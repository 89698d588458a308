"""
Runs one command and measures it from the outside: time, throughput, CPU, memory, output.

Throughput comes from the events that the benchmark's predictors write (see `predictors.py`), so it
means the same for every contestant. CPU time and memory are those of all processes together, also
of those that the command leaves behind.
"""

import ctypes
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import psutil

from benchmarks.workloads import CACHE, ROOT

MB = 1 << 20
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_POLL = 0.02
_MEMORY_INTERVAL = 1.0
"""Seconds. Adding up the pages of a process stops it for some milliseconds."""
_PATIENCE, _LIFE = 15.0, 0.1
"""A command hangs if in so many seconds all of its processes together use less CPU time than that.
(A pool's own threads wake up now and then, to look for work.)"""

# AllenNLP, and what it is built on, have a lot to say that is beside the point here.
QUIET = {
    "ALLENNLP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
    "NLTK_DATA": str(CACHE / "nltk_data"),
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}


class Measured(NamedTuple):
    """What one run of a command took and gave."""

    outcome: str
    """`"ok"`, `"fails"`, `"hangs"` (nothing moves any more) or `"takes too long"`."""
    note: str
    """Why it did not end well."""
    seconds: float
    """From the start of the command to its end."""
    first: Optional[float] = None
    """From the start of the command to the end of its first batch."""
    steady: Optional[float] = None
    """Lines per second, counted for each worker from the end of its first batch to the end."""
    undisturbed: Optional[float] = None
    """The same, but to the end of the worker's own last batch: as if the work were dealt out
    perfectly."""
    cpu_seconds: float = 0.0
    pss: float = 0.0
    """The peak of the proportional set sizes of all processes together, in MB."""
    steady_pss: float = 0.0
    """The median of the same between the first event and the last."""
    private: Sequence[float] = ()
    """The memory that each process has for itself, in MB."""
    output: bytes = b""


def run(
    command: Sequence[str],
    output: Optional[Path] = None,
    limit: float = 600.0,
    environment: Optional[Dict[str, str]] = None,
    memory_interval: float = _MEMORY_INTERVAL,
) -> Measured:
    """Runs a command in the root of the repository, and ends it after `limit` seconds."""
    _adopt_orphans()
    with tempfile.TemporaryDirectory() as folder:
        events, errors = Path(folder) / "events", Path(folder) / "stderr"
        before = _cpu_of_children()
        with open(errors, "wb") as stderr:
            start = time.monotonic()
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**_environment(events), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
            )
            watch = _Watch(process, memory_interval)
            outcome = watch.until(start + limit)
            seconds = time.monotonic() - start
        note = ""
        _end_all()
        if outcome == "ok" and process.returncode:
            outcome = "fails"
            note = _last_line(errors) or f"exit status {process.returncode}"
        times = _Events(events, start)
        return Measured(
            outcome,
            note,
            seconds,
            times.first(),
            times.steady(),
            times.undisturbed(),
            _cpu_of_children() - before,
            watch.peak(),
            *watch.between(times.start, times.end),
            output.read_bytes() if output is not None and output.exists() else b"",
        )


def _environment(events: Path) -> Dict[str, str]:
    (CACHE / "nltk_data" / "tokenizers" / "punkt").mkdir(parents=True, exist_ok=True)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    return {**inherited, **QUIET, "PYTHONPATH": str(ROOT), "BENCHMARK_EVENTS": str(events)}


def run_well(command: Sequence[str], output: Path, **how: Any) -> Measured:
    """`run`, of a command without which there is nothing to report."""
    measured = run(command, output, **how)
    if measured.outcome != "ok":
        sys.exit(f"{' '.join(command)}: {measured.outcome} {measured.note}")
    return measured


class _Watch:
    """Watches a process and its descendants."""

    def __init__(self, process: subprocess.Popen, memory_interval: float) -> None:
        self.memory: List[Tuple[float, int, List[int]]] = []
        """A moment, the proportional set size, and the memory that each process has for itself."""
        self._process = process
        self._memory_interval = memory_interval

    def until(self, deadline: float) -> str:
        """Waits for the end of the process; returns whether it came, or what came instead."""
        next_look = 0.0
        cpu, last_move = -1.0, time.monotonic()
        while self._process.poll() is None:
            now = time.monotonic()
            if now > deadline:
                return "takes too long"
            if now >= next_look:
                total, private, cpu_now = _look_at_all()
                self.memory.append((now, total, private))
                next_look = now + self._memory_interval
                # It may also fall: a process that ends takes its CPU seconds with it.
                if abs(cpu_now - cpu) > _LIFE:
                    cpu, last_move = cpu_now, now
                elif now > last_move + _PATIENCE:
                    return "hangs"
            time.sleep(_POLL)
        return "ok"

    def peak(self) -> float:
        return max((pss for _, pss, _ in self.memory), default=0) / MB

    def between(self, start: float, end: float) -> Tuple[float, List[float]]:
        """The median proportional set size, and the median private memory of each process."""
        samples = [sample for sample in self.memory if start <= sample[0] <= end]
        if not samples:
            return 0.0, []
        number = max(len(private) for _, _, private in samples)
        rows = [private for _, _, private in samples if len(private) == number]
        return median(pss for _, pss, _ in samples) / MB, [median(c) / MB for c in zip(*rows)]


class _Events:
    """When which process had predicted how much."""

    def __init__(self, path: Path, command_start: float) -> None:
        self._command_start = command_start
        self._by_process: Dict[str, List[Tuple[float, int]]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            pid, moment, lines = line.split()
            self._by_process.setdefault(pid, []).append((float(moment), int(lines)))

        moments = [moment for events in self._by_process.values() for moment, _ in events]
        self.start, self.end = min(moments, default=0.0), max(moments, default=0.0)

    def first(self) -> Optional[float]:
        return self.start - self._command_start if self._by_process else None

    def steady(self) -> Optional[float]:
        return self._rate([self.end] * len(self._by_process))

    def undisturbed(self) -> Optional[float]:
        return self._rate([events[-1][0] for events in self._by_process.values()])

    def _rate(self, ends: List[float]) -> Optional[float]:
        total = 0.0
        for events, end in zip(self._by_process.values(), ends):
            if len(events) > 1:
                total += sum(lines for _, lines in events[1:]) / (end - events[0][0])
        return total or None


def _look_at_all() -> Tuple[int, List[int], float]:
    """
    The proportional set size of all descendants of this process, what each has for itself, and the
    CPU seconds of all.
    """
    total, private, cpu = 0, [], 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            memory, times = child.memory_full_info(), child.cpu_times()
        except psutil.Error:
            continue
        total += memory.pss
        private.append(memory.uss)
        cpu += times.user + times.system
    return total, private, cpu


def _adopt_orphans() -> None:
    """Processes whose parent dies become our children, so that they are counted and ended."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _end_all() -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        children = psutil.Process().children(recursive=True)
        for child in children:
            try:
                child.kill()
            except psutil.Error:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_POLL)
    sys.exit("some processes of a contestant cannot be ended")


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _last_line(errors: Path) -> str:
    lines = errors.read_text(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else ""
