"""
How a process is set up to run a model: CPUs, threads and the memory allocator.

None of it changes a byte of the output, except the number of threads (the last digits of some
models), which is therefore a setting.
"""

import ctypes
import os
import re
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, List, Optional

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # malloc.h
_TRIM_THRESHOLD = 512 << 20
_TOKENIZERS = "TOKENIZERS_PARALLELISM"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_MKL_PATH = "MKL_DEBUG_CPU_TYPE"


def usable_cpus() -> List[int]:
    """The CPUs that this process may use, by its affinity and no more than its cgroup allows."""
    from joblib import cpu_count  # slow to import, unless AllenNLP has done so

    count = cpu_count()
    affinity = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(count)
    return list(affinity)[:count]


def memory() -> int:
    """Bytes of memory of this machine, or of this container if it has a limit."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2, v1
        try:
            return min(total, int(Path("/sys/fs/cgroup", name).read_text()))
        except (OSError, ValueError):
            pass  # not this version, or "max"
    return total


def has_slow_mkl() -> bool:
    """
    Whether matrix products are computed with SSE on a CPU that has AVX2. The MKL in the wheels of
    torch 1.10 to 1.12 does that on CPUs by AMD, unless `MKL_DEBUG_CPU_TYPE` is 5; later ones
    neither do it nor know the variable.
    """
    mkl = re.search(r"Math Kernel Library Version (\d+)\.(\d+)", torch.__config__.show())
    if mkl is None or tuple(map(int, mkl.groups())) > (2020, 0) or _MKL_PATH in os.environ:
        return False
    try:
        cpu = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "AuthenticAMD" in cpu and " avx2 " in cpu


@contextmanager
def ready_to_fork() -> Iterator[None]:
    """
    Around loading an archive in a process that will be forked: no library starts threads, which
    would not survive it. Torch has one, and a tokenizer, which would also complain on stdout in
    every child (tokenizers#187), none. What was set before is set again afterwards.
    """
    threads, is_users = torch.get_num_threads(), _TOKENIZERS in os.environ
    torch.set_num_threads(1)
    os.environ.setdefault(_TOKENIZERS, "false")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        if not is_users:
            os.environ.pop(_TOKENIZERS, None)


def tune_process(threads: int, cpus: Optional[List[int]] = None) -> None:
    """Sets up a worker process: the threads of an operation, and the CPUs that it is to stay on."""
    torch.set_num_threads(threads)
    # A tokenizer's own threads would compete with the other workers.
    os.environ.setdefault(_TOKENIZERS, "false")
    keep_freed_memory()
    if cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cpus)


def keep_freed_memory() -> None:
    """
    Stops glibc from giving every large tensor back to the kernel when it is freed: getting the
    pages again for the next batch costs more than the arithmetic of many a layer. (A fifth of the
    time of a transformer on sentences of 250 word pieces. The threshold for using mmap is of no
    help: glibc accepts none over 32 MB, and these tensors are larger.)
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
        mallopt(_M_ARENA_MAX, 1)  # what one thread has freed is for all


def die_with_parent(parent: int, signal_number: int) -> None:
    """Asks the kernel for a signal when the parent dies, however it dies and whatever we do."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)
