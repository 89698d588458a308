"""Runs of the command's own code without a model, with a fault at any of its calls to `os`."""

import contextlib
import errno
import json
import os
import signal
from collections import deque
from pathlib import Path
from typing import Any, Callable, Deque, Dict, Iterator, List, Optional, Tuple

from allennlp_parallel_predict.common.errors import Interrupted
from allennlp_parallel_predict.common.messages import Batch, BatchResult, Failure
from allennlp_parallel_predict.common.remote_errors import RemoteError
from allennlp_parallel_predict.data import files, parquet_output
from allennlp_parallel_predict.data.batching import BucketBatching, InOrderBatching
from allennlp_parallel_predict.executors import Executor
from allennlp_parallel_predict.pipeline import checkpoint
from allennlp_parallel_predict.pipeline.config import RunConfig
from allennlp_parallel_predict.pipeline.run import PredictRun
from allennlp_parallel_predict.pipeline.signals import Interrupts
from allennlp_parallel_predict.settings import Settings


class EchoExecutor(Executor):
    """
    Gives back what it gets, the later batch first; every fifth input fails. `collecting` is called
    with the number of the call before results are given back, and may raise.
    """

    def __init__(self, collecting: Callable[[int], Any] = lambda number: None) -> None:
        self._waiting: Deque[Batch] = deque()
        self._collecting = collecting
        self._collected = 0

    def start(self, predictor: Any, options: Any, preserve_order: bool = True) -> None:
        self._on_error = options.on_error

    def has_room(self) -> bool:
        return len(self._waiting) < 3

    def is_idle(self) -> bool:
        return not self._waiting

    def submit(self, batch: Batch) -> None:
        self._waiting.append(batch)

    def collect(self, timeout: Any = None, wake: Any = ()) -> List[BatchResult]:
        self._collecting(self._collected)
        self._collected += 1
        return [echo(self._waiting.pop(), self._on_error)] if self._waiting else []

    def threads(self) -> int:
        return 1

    def describe(self) -> str:
        return "in a test"


class InterruptedExecutor(EchoExecutor):
    """Finishes one batch after the other, until it is interrupted in place of a result."""

    def __init__(self, at: int) -> None:
        super().__init__(self._interrupt)
        self._at = at

    def has_room(self) -> bool:
        return not self._waiting

    def _interrupt(self, number: int) -> None:
        if number == self._at:
            raise Interrupted(signal.SIGTERM)


NO = RemoteError.of(ValueError("no"))
PLACEHOLDER_KEYS = ("line", "type", "message")


def echo(batch: Batch, on_error: str) -> BatchResult:
    numbers = [int(value) for value in batch.values]
    outputs = [None if is_bad(n) else output_of(n) for n in numbers]
    failures = [Failure(i, NO) for i, output in enumerate(outputs) if output is None]
    if failures and on_error == "raise":
        return BatchResult(batch.number, outputs[: failures[0].offset], fatal=failures[0])
    return BatchResult(batch.number, outputs, failures=failures)


def is_bad(number: int) -> bool:
    return number % 5 == 2


def output_of(number: int) -> str:
    return f"{number} " + "é" * (number % 3 * 20) + "\n"


class SmallRun(PredictRun):
    def _load(self) -> Any:
        return None


class Killed(BaseException):
    """The process is gone: nothing that it would still do has an effect."""


KINDS = [
    *("kill before", "kill after", "kill in the middle", "signal before", "signal after"),
    *("EIO", "ENOSPC"),
]
_CALLS = ("write", "fsync", "rename", "unlink", "ftruncate")


class FaultyOS:
    """
    `os`, with a fault at the call of number `at`.

    `log` has what was done to files, by a number of the file that it keeps when it is renamed.
    """

    def __init__(self, at: Optional[int] = None, kind: str = "") -> None:
        self.at, self.kind = at, kind
        self.calls = 0
        self.log: List[Tuple[Any, ...]] = []
        self.injected = False
        self._is_dead = False
        self._fails_next = False
        self._files: Dict[int, Any] = {}
        self._numbers: Dict[str, int] = {}

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name == "open":
            return self._open
        if name not in _CALLS:
            return function
        return lambda *args: self._call(name, function, args)

    def _open(self, path: str, flags: int, mode: int = 0o777) -> int:
        if self._is_dead:
            raise Killed
        is_new = not os.path.lexists(path)
        descriptor = os.open(path, flags, mode)
        if os.path.isdir(path):
            self._files[descriptor] = None
            return descriptor
        if is_new:
            self._numbers[path] = 1000 + len(self.log)
            self.log.append(("create", self._numbers[path], path))
        self._files[descriptor] = self._numbers.setdefault(path, len(self._numbers))
        return descriptor

    def _call(self, name: str, function: Any, args: Tuple[Any, ...]) -> Any:
        if self._is_dead:
            raise Killed
        if self._fails_next and name == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        number, self.calls = self.calls, self.calls + 1
        if number != self.at:
            return self._do(name, function, args)
        self.injected = True
        what, _, when = self.kind.partition(" ")
        if what == "EIO" or (what == "ENOSPC" and name != "write"):
            raise OSError(getattr(errno, what), os.strerror(getattr(errno, what)))
        if what == "ENOSPC" or when == "in the middle":
            if name == "write":
                args = (args[0], bytes(args[1][: len(args[1]) // 2]))
            self._fails_next = what == "ENOSPC"
        if when == "before":
            self._strike(what)
        done = self._do(name, function, args) if not self._is_dead else None
        if when in ("after", "in the middle"):
            self._strike(what)
        return done

    def _strike(self, what: str) -> None:
        if what == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._is_dead = True
            raise Killed

    def _do(self, name: str, function: Any, args: Tuple[Any, ...]) -> Any:
        file = self._files.get(args[0]) if isinstance(args[0], int) else None
        place = os.lseek(args[0], 0, os.SEEK_CUR) if name == "write" else 0
        done = function(*args)
        if name == "write":
            self.log.append(("write", file, place, bytes(args[1][:done])))
        elif name == "ftruncate":
            self.log.append(("truncate", file, args[1]))
        elif name == "fsync":
            self.log.append(("sync", file) if file is not None else ("sync folder",))
        else:
            if name == "rename":
                self._numbers[args[1]] = self._numbers.pop(args[0])
            self.log.append((name, *args))
        return done


class Place:
    """A folder with the files of a run."""

    def __init__(
        self, folder: Path, numbers: Any, batching: str = "in_order", on_error: str = "skip"
    ) -> None:
        self.folder = folder
        self.numbers = list(numbers)
        self.batching = batching
        self.on_error = on_error
        self.output, self.errors = folder / "output", folder / "errors"
        self.checkpoint = folder / "output.checkpoint"
        (folder / "archive").touch()
        # A blank line now and then: line numbers are not positions.
        (folder / "input").write_text("".join(f"{n}\n" + "\n" * (n % 2) for n in self.numbers))

    def run(
        self,
        system: Any = None,
        checkpoint_interval: float = 0.0,
        executor: Optional[EchoExecutor] = None,
        **flags: Any,
    ) -> int:
        """One run of the command; whatever ends it is raised."""
        config = RunConfig(
            str(self.folder / "archive"),
            str(self.folder / "input"),
            str(self.output),
            str(self.errors),
            silent=True,
            **flags,
        )
        if self.batching == "bucket":
            batching: Any = BucketBatching(batch_size=2, window=6)
        elif self.batching == "max_tokens":
            batching = BucketBatching(window=6, max_tokens=5)
        else:
            batching = InOrderBatching(2)
        settings = Settings(
            executor or EchoExecutor(),
            batching,
            on_error=self.on_error,
            progress="never",
            checkpoint_interval=checkpoint_interval,
        )
        interrupts = Interrupts()
        with patched(system or QuickOS()), interrupts.handled():
            return SmallRun(config, settings, interrupts).run()

    def check(self) -> None:
        """Everything is as after a run without a fault."""
        assert self.output.read_bytes() == self.expected()
        assert self.errors.read_bytes() == self.expected_errors()
        names = {"archive", "input", "output", "errors"}
        assert {path.name for path in self.folder.iterdir()} == names

    def expected(self, count: Optional[int] = None) -> bytes:
        """The output after the first `count` inputs."""
        return "".join(map(self._line, range(len(self.numbers))[:count])).encode()

    def expected_errors(self, count: Optional[int] = None) -> bytes:
        if self.on_error == "raise":
            return b""
        places = [i for i, n in enumerate(self.numbers[:count]) if is_bad(n)]
        return b"".join(json.dumps(self._record(i)).encode() + b"\n" for i in places)

    def _line(self, place: int) -> str:
        number = self.numbers[place]
        if not is_bad(number):
            return output_of(number)
        if self.on_error != "placeholder":
            return ""
        record = self._record(place)
        return json.dumps({"error": {key: record[key] for key in PLACEHOLDER_KEYS}}) + "\n"

    def _record(self, place: int) -> Dict[str, Any]:
        lines = (self.folder / "input").read_text().splitlines()
        return {
            "line": [number for number, line in enumerate(lines, 1) if line][place],
            "input": str(self.numbers[place]),
            "type": "ValueError",
            "message": "no",
            "traceback": NO.traceback,
        }


class QuickOS:
    """`os` without waiting for the disk."""

    def __getattr__(self, name: str) -> Any:
        return (lambda descriptor: None) if name == "fsync" else getattr(os, name)


@contextlib.contextmanager
def patched(system: Any) -> Iterator[None]:
    """Puts an `os` into the modules that write, and a buffer that is full again and again."""
    before = files._BUFFER
    modules = (files, checkpoint, parquet_output)
    for module in modules:
        vars(module)["os"] = system
    files._BUFFER = 48
    try:
        yield
    finally:
        for module in modules:
            vars(module)["os"] = os
        files._BUFFER = before
