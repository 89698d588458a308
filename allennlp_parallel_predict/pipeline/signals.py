"""Ctrl-C and SIGTERM: noticed at once, but never in the middle of a write."""

import os
import signal
import threading
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional

from allennlp_parallel_predict.common.errors import Interrupted


class Interrupts:
    """
    Turns SIGINT and SIGTERM into an `Interrupted` exception; a second one ends the process on the
    spot (the kernel ends the workers with it), also where the first is still put off because a
    reader of the output does not read. Does nothing outside the main thread.
    """

    def __init__(self) -> None:
        self._shields = 0
        self._first: Optional[int] = None
        self._is_pending = False

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Handles the signals inside, and puts the former handlers back."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: Dict[int, Any] = {
            number: signal.signal(number, self._handle)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Puts a signal off until the end of the block, or of the block around it."""
        self._shields += 1
        try:
            yield
        finally:
            self._shields -= 1
            if self._is_pending and not self._shields:
                self._is_pending = False
                assert self._first is not None
                raise Interrupted(self._first)

    def _handle(self, number: int, frame: Any) -> None:
        if self._first is not None:
            os._exit(128 + number)
        self._first = number
        if self._shields:
            self._is_pending = True
        else:
            raise Interrupted(number)
