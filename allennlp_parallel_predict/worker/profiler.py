"""What a worker notes of each batch."""

import glob
import os
import time
from typing import Any, ContextManager

import torch
from allennlp.predictors import Predictor
from torch.nn import Module

from allennlp_parallel_predict.common.messages import SPANS, TIMES, BatchProfile
from allennlp_parallel_predict.common.recorder import Recorder
from allennlp_parallel_predict.common.stages import OTHER, STARTING, WAITING
from allennlp_parallel_predict.common.stopwatch import Stopwatch
from allennlp_parallel_predict.worker.hooks import Lengths, Patches, watch_predictor

_CPU_INTERVAL = 0.05
"""Seconds after which the CPU time is read again."""


class WorkerProfiler(Recorder):
    """
    # Parameters

    predictor : `Predictor`
        What is measured. It has hooks until `close`.
    detail : `str`
        `TIMES`, `SUMS` or `SPANS`.
    """

    def __init__(self, predictor: Predictor, detail: str) -> None:
        self._since = time.monotonic()
        self._cpu_before = time.process_time()
        self._cpu = self._next_cpu = 0.0
        self._cpu_wait, self._wait_before = 0.0, _seconds_without_cpu()
        modules = predictor._model.modules() if isinstance(predictor._model, Module) else ()
        self._skips_padding = any(getattr(module, "skips_padding", False) for module in modules)
        self._watch = Stopwatch(WAITING, self._since, detail == SPANS)
        self._lengths = Lengths()
        self._patches = Patches()
        if detail != TIMES:
            watch_predictor(predictor, self._watch, self._lengths, self._patches)

    def started_at(self, launched: float) -> None:
        """This process was made for the worker: what it did up to now was starting."""
        self._since, self._cpu_before = launched, 0.0
        self._watch.restart(launched, STARTING)

    def begin(self) -> None:
        """The work on a batch begins; it ends with `record`."""
        self._watch.take_over()
        self._lengths.clear()
        self._watch.enter(OTHER)
        self._started = self._watch.now

    def record(self) -> BatchProfile:
        """The work on the batch has ended; returns what there is to say of it."""
        self._watch.leave()
        stages, spans, ended = self._watch.take()
        since, self._since = self._since, ended
        lengths = self._lengths
        return BatchProfile(
            os.getpid(),
            since,
            self._started,
            ended,
            stages,
            lengths.instances,
            lengths.tokens,
            lengths.padded,
            torch.get_num_threads(),
            self._cpu_seconds(ended),
            spans,
            self._cpu_wait,
            self._skips_padding,
        )

    def _cpu_seconds(self, now: float) -> float:
        # Not of every batch: it takes system calls, and so longer than all the rest.
        if now >= self._next_cpu:
            self._next_cpu = now + _CPU_INTERVAL
            self._cpu = time.process_time() - self._cpu_before
            self._cpu_wait = _seconds_without_cpu() - self._wait_before
        return self._cpu

    def stage(self, name: str) -> ContextManager[Any]:
        return self._watch.stage(name)

    def close(self) -> None:
        """Takes the hooks off the predictor."""
        self._patches.undo()


def _seconds_without_cpu() -> float:
    """How long this process's threads have waited for a CPU (Linux; see proc(5), schedstat)."""
    total = 0
    for path in glob.glob("/proc/self/task/*/schedstat"):
        try:
            with open(path) as file:
                total += int(file.read().split()[1])
        except (OSError, IndexError):
            pass  # the thread has ended, or this kernel does not count
    return total / 1e9
