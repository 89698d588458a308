"""Memory and swap, as the system counts them."""

import os
import time
from typing import Any, Dict, Iterable, Tuple

import psutil


def memory_of(pids: Iterable[int]) -> Dict[int, Dict[str, int]]:
    """
    The memory of processes in bytes: `rss`, what a process has in memory; `uss`, what it alone
    has; `pss`, `uss` and its share of what it has with others (Linux only). Processes that are
    gone are left out.
    """
    found: Dict[int, Dict[str, int]] = {}
    for pid in pids:
        try:
            info = psutil.Process(pid).memory_full_info()
        except psutil.Error:
            continue
        found[pid] = {name: getattr(info, name, info.rss) for name in ("rss", "uss", "pss")}
    return found


def total_memory(by_process: Dict[int, Dict[str, int]]) -> Dict[str, Any]:
    """What processes take together, and how much of what each of them sees is shared."""
    rss = sum(memory["rss"] for memory in by_process.values())
    unique = sum(memory["uss"] for memory in by_process.values())
    return {
        "pss_bytes": sum(memory["pss"] for memory in by_process.values()),
        "shared": 1 - unique / rss if rss else 0.0,
        "processes": len(by_process),
    }


def swapped() -> Tuple[int, int]:
    """The bytes that this machine has read from and written to swap since it was started."""
    try:
        swap = psutil.swap_memory()
    except (OSError, RuntimeError):
        return 0, 0  # not to be known here
    return swap.sin, swap.sout


def process_start() -> float:
    """When this process was started, by `time.monotonic()`."""
    age = time.time() - psutil.Process(os.getpid()).create_time()
    return float(time.monotonic() - age)
