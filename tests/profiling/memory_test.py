"""Memory, as the system counts it."""

import os
import time

from allennlp_parallel_predict.profiling.memory import (
    memory_of,
    process_start,
    swapped,
    total_memory,
)


def test_processes_that_are_gone_are_left_out():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    found = memory_of([os.getpid(), pid])
    assert list(found) == [os.getpid()]
    memory = found[os.getpid()]
    assert 1 << 20 < memory["uss"] <= memory["pss"] <= memory["rss"]


def test_what_is_shared():
    two = {1: {"rss": 100, "pss": 70, "uss": 40}, 2: {"rss": 100, "pss": 70, "uss": 40}}
    assert total_memory(two) == {"pss_bytes": 140, "shared": 0.6, "processes": 2}
    assert total_memory({}) == {"pss_bytes": 0, "shared": 0.0, "processes": 0}


def test_moments():
    assert process_start() < time.monotonic()
    read, written = swapped()
    assert read >= 0 and written >= 0
