"""
What a person sees of a run: a bar while it lasts where there is a terminal, a line every so many
seconds where there is a log file, and a line at its end.
"""

import contextlib
import json
import os
import sys
import time
from typing import Any, Dict, Optional, Sequence

from allennlp.common import Tqdm
from allennlp.common import logging as common_logging

from allennlp_parallel_predict.common.errors import user_error_context
from allennlp_parallel_predict.data.sources import Source
from allennlp_parallel_predict.executors import Executor

LOG_INTERVAL = 30.0
"""Seconds between two lines of progress in a log file."""
JSON_INTERVAL = 1.0
"""Seconds between two lines of `--progress json`."""


class Progress:
    """
    # Parameters

    mode : `str`
        `"always"`, `"never"`, `"json"` for JSON objects on stderr, `"json:3"` for them on that file
        descriptor, or `"auto"`: always unless predictions are printed to the same terminal.
    prints_to_console : `bool`
        Whether predictions are printed to stdout.
    done, failures : `int`, optional (default = `0`)
        The inputs that an interrupted run has dealt with, and those of them that failed.
    """

    def __init__(
        self,
        mode: str,
        sources: Sequence[Source],
        prints_to_console: bool,
        done: int = 0,
        failures: int = 0,
    ) -> None:
        self._started = time.monotonic()
        self._done_before = done
        self._done = done
        self.failures = failures
        """All in the outputs."""
        self._done_elsewhere = self._failures_elsewhere = 0
        self._bar: Optional[Any] = None
        self._next_line = float("inf")
        self._total: Optional[int] = None
        self._is_json = mode.startswith("json")
        self._descriptor = int(mode[len("json:") :] or 2) if self._is_json else 2
        is_log = common_logging.FILE_FRIENDLY_LOGGING or not sys.stderr.isatty()
        # A bar would be drawn between the predictions.
        would_mix = not is_log and prints_to_console and sys.stdout.isatty()
        if mode == "never" or (mode == "auto" and would_mix):
            return
        totals = [source.total() for source in sources]
        self._total = None if None in totals else sum(total or 0 for total in totals)
        if self._is_json:
            self._next_line = self._started
        elif is_log:
            self._next_line = self._started + LOG_INTERVAL
        else:
            self._bar = Tqdm.tqdm(
                total=self._total,
                initial=done,
                unit=" lines",
                desc="predicting",
                mininterval=0.2,
                miniters=1,
                dynamic_ncols=True,
            )

    def begin_input(self, done: int, failures: int) -> None:
        """The next input begins, of which an interrupted run has dealt with so many."""
        self._done_elsewhere = self._done - done
        self._failures_elsewhere = self.failures - failures

    def set(self, done: int, failures: int) -> None:
        """So many of the input are done, and have failed."""
        self._done = done + self._done_elsewhere
        self.failures = failures + self._failures_elsewhere

    def update(self, done: int, failures: int, executor: Executor) -> None:
        """Sets how far the run is, and shows it."""
        before = self._done
        self.set(done, failures)
        if self._bar is not None and self._done > before:
            self._bar.set_postfix_str(self._details(executor), refresh=False)
            self._bar.update(self._done - before)
        elif time.monotonic() >= self._next_line:
            interval = JSON_INTERVAL if self._is_json else LOG_INTERVAL
            self._next_line = time.monotonic() + interval
            if self._is_json:
                self._write_json(executor)
            else:
                print(self.line(executor), file=sys.stderr, flush=True)

    def finish(self, executor: Executor) -> Dict[str, Any]:
        """The figures of the run, which are also the last line of `--progress json`."""
        if self._is_json:
            self._write_json(executor)
        return {**self._figures(executor), "workers": executor.num_workers}

    def _figures(self, executor: Executor) -> Dict[str, Any]:
        """`lines` are those of this run, `failures` all in the outputs."""
        seconds = time.monotonic() - self._started
        lines = self._done - self._done_before
        counts = executor.counts()
        return {
            "lines": lines,
            "failures": self.failures,
            "seconds": round(seconds, 3),
            "lines_per_second": round(lines / max(seconds, 1e-9), 3),
            "workers": counts.alive,
            "restarts": counts.restarts,
        }

    def _write_json(self, executor: Executor) -> None:
        figures = self._figures(executor)
        left = None if self._total is None else max(0, self._total - self._done)
        rate = figures["lines_per_second"]
        remaining = round(left / rate, 1) if left is not None and rate > 0 else None
        more = {"done": self._done, "left": left, "remaining_seconds": remaining}
        line = json.dumps({**figures, **more})
        with contextlib.suppress(BrokenPipeError):  # the run goes on if nobody reads it
            os.write(self._descriptor, f"{line}\n".encode())

    def line(self, executor: Executor) -> str:
        """How far the run is, for a log file."""
        rate = (self._done - self._done_before) / max(1e-9, time.monotonic() - self._started)
        text = f"predicting: {self._done:,}"
        if self._total is not None:
            # Blank lines are in the total, so it can be too high, but never by less than nothing.
            total = max(self._total, self._done)
            text += f" of {total:,} lines ({self._done / max(1, total):.0%})"
        else:
            text += " lines"
        text += f", {rate:,.1f} lines/s"
        if self._total is not None and rate > 0:
            text += f", {clock((total - self._done) / rate)} left"
        return f"{text}, {self._details(executor)}"

    def _details(self, executor: Executor) -> str:
        counts = executor.counts()
        details = f"workers={counts.alive}"
        if counts.restarts:
            details += f", restarts={counts.restarts}"
        if self.failures:
            details += f", failed={self.failures}"
        return details

    def close(self) -> None:
        self._next_line = float("inf")
        if self._bar is not None:
            self._bar.total = self._done  # blank lines are not counted in advance
            self._bar.close()
            self._bar = None

    def summary(self, executor: Executor) -> str:
        now = self._figures(executor)
        text = f"{now['lines']:,} lines in {now['seconds']:.1f} s "
        text += f"({now['lines_per_second']:,.1f} lines/s), {executor.describe()}"
        if now["restarts"]:
            text += f", {now['restarts']} restarted"
        if self.failures:
            text += f", {self.failures:,} failed"
        return text


def check_progress(mode: str) -> None:
    """Raises an `OSError` if the file descriptor is not open."""
    number = mode.partition(":")[2]
    with user_error_context(f"--progress {mode}: cannot use file descriptor {number}", OSError):
        if number:
            os.fstat(int(number))


def clock(seconds: float) -> str:
    """A duration as a clock shows it."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
