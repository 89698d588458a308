"""What a person sees of a run: a bar while it lasts, a line at its end."""

import sys
import time
from typing import Any, Optional

from allennlp.common import Tqdm
from allennlp.common import logging as common_logging

from allennlp_parallel_predict.executors import Executor
from allennlp_parallel_predict.sources import Source

_LOG_INTERVAL = 10.0
"""Seconds between two lines of progress in a log file."""


class Progress:
    """
    # Parameters

    mode : `str`
        `"always"`, `"never"`, or `"auto"`: if stderr is a terminal that nothing else is printed
        to, or `--file-friendly-logging` asks for it.
    source : `Source`
        Where the inputs come from, for their number.
    prints_to_console : `bool`
        Whether predictions are printed to stdout.
    done : `int`, optional (default = `0`)
        The inputs that an interrupted run has dealt with.
    """

    def __init__(self, mode: str, source: Source, prints_to_console: bool, done: int = 0) -> None:
        self._started = time.monotonic()
        self._done_before = done
        self._done = done
        self._failures = 0
        self._bar: Optional[Any] = None
        if mode == "always" or (mode == "auto" and _is_wanted(prints_to_console)):
            is_log = common_logging.FILE_FRIENDLY_LOGGING or not sys.stderr.isatty()
            self._bar = Tqdm.tqdm(
                total=source.total(),
                initial=done,
                unit=" lines",
                desc="predicting",
                mininterval=_LOG_INTERVAL if is_log else 0.2,
                miniters=1,
            )

    def update(self, done: int, failures: int, executor: Executor) -> None:
        """Shows how far the run is."""
        self._failures = failures
        if self._bar is not None and done > self._done:
            counts = executor.counts()
            details = f"workers={counts.alive}"
            if counts.restarts:
                details += f", restarts={counts.restarts}"
            if failures:
                details += f", failed={failures}"
            self._bar.set_postfix_str(details, refresh=False)
            self._bar.update(done - self._done)
        self._done = done

    def close(self) -> None:
        if self._bar is not None:
            self._bar.total = self._done  # blank lines are not counted in advance
            self._bar.close()
            self._bar = None

    def summary(self, executor: Executor) -> str:
        seconds = time.monotonic() - self._started
        done = self._done - self._done_before
        text = f"{done:,} lines in {seconds:.1f} s ({done / max(seconds, 1e-9):,.1f} lines/s)"
        text += f", {executor.describe()}"
        counts = executor.counts()
        if counts.restarts:
            text += f", {counts.restarts} restarted"
        if self._failures:
            text += f", {self._failures:,} failed"
        return text


def _is_wanted(prints_to_console: bool) -> bool:
    if common_logging.FILE_FRIENDLY_LOGGING:
        return True
    return sys.stderr.isatty() and not (prints_to_console and sys.stdout.isatty())
