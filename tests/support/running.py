"""
Runs `allennlp predict` and `allennlp parallel-predict` and keeps what a user can see of them.

Importing AllenNLP takes seconds and predicting with a tiny archive takes a tenth of one, so a
`Runner` is a process that stays and runs one command after the other.
"""

import contextlib
import functools
import gc
import io
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence

import psutil

PREDICT = "predict"
# Point this at `predict` to test the tests.
PARALLEL_PREDICT = os.environ.get("PARALLEL_PREDICT_UNDER_TEST", "parallel-predict")


@dataclass
class Outcome:
    """What one command did. `error` names the exception's type, as it would end the traceback."""

    status: int = 0
    error: str = ""
    message: str = ""
    explanation: str = ""  # what the command prints in place of the traceback
    traceback: str = ""
    stdout: bytes = b""
    stderr: str = ""
    output: Optional[bytes] = None  # the output file, if there is one
    leftover: List[str] = field(default_factory=list)  # processes that it left behind


def assert_same(ours: Outcome, theirs: Outcome) -> None:
    """Everything is the same, but that our message may say more, and stderr."""
    __tracebackhide__ = True
    assert ours.error == theirs.error, f"{ours.stderr[-3000:]}\n{ours.traceback}"
    assert theirs.message in ours.message
    assert ours.status == theirs.status, ours.stderr[-3000:]
    assert ours.output == theirs.output
    assert ours.stdout == theirs.stdout
    assert ours.leftover == []


def is_helper(process: psutil.Process) -> bool:
    """Whether this is the process that `multiprocessing` keeps for cleaning up, not one of ours."""
    with contextlib.suppress(psutil.Error):
        return "resource_tracker" in " ".join(process.cmdline())
    return True  # gone meanwhile


def workers(recursive: bool = False) -> List[psutil.Process]:
    """The children of this process, less those that outlive a test."""
    ours = {pid for runner in RUNNERS.values() for pid in runner.pids}
    return [c for c in psutil.Process().children(recursive) if c.pid not in ours]


def leftover_children(patience: float = 3.0) -> List[str]:
    """The children of this process that are still there after `patience` seconds."""
    children = [child for child in workers(recursive=True) if not is_helper(child)]
    _, alive = psutil.wait_procs(children, timeout=patience)
    return [str(process) for process in alive]


@contextlib.contextmanager
def standard_streams(stdin: Path, stdout: Path, stderr: Path) -> Iterator[None]:
    """Puts files in place of Python's standard streams and of the descriptors workers inherit."""
    files = [open(stdin, "rb"), open(stdout, "wb"), open(stderr, "wb")]
    saved_streams = sys.stdin, sys.stdout, sys.stderr
    sys.stdout.flush()
    sys.stderr.flush()
    saved_descriptors = [os.dup(number) for number in range(3)]
    for number, file in enumerate(files):
        os.dup2(file.fileno(), number)
        file.close()
    sys.stdin = io.TextIOWrapper(os.fdopen(0, "rb", closefd=False), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), encoding="utf-8")
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = saved_streams
        for number, descriptor in enumerate(saved_descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)


@functools.lru_cache(maxsize=None)
def search_packages_once() -> None:
    """Spares every command a search of AllenNLP's folders, which takes longer than it all."""
    from allennlp.common import plugins

    search: Any = plugins.import_module_and_submodules
    searched = set()

    def search_once(package: str, *args: Any, **kwargs: Any) -> None:
        if package not in searched:
            search(package, *args, **kwargs)
        if package in ("allennlp", *plugins.DEFAULT_PLUGINS):
            searched.add(package)

    vars(plugins)["import_module_and_submodules"] = search_once


def allennlp(arguments: Sequence[str]) -> None:
    """What the `allennlp` command does, in this process."""
    sys.argv = ["allennlp", *arguments]
    if arguments[0] == PREDICT:
        from allennlp.commands import main

        main()
    else:
        runpy.run_module("allennlp_parallel_predict", run_name="__main__")


def call(
    arguments: Sequence[str], output: Optional[Path] = None, stdin: bytes = b"", cwd: str = "."
) -> Outcome:
    """
    Run `allennlp ARGUMENTS` in this process. Every command starts with the same random numbers; a
    new process would have others each time.
    """
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    search_packages_once()
    outcome = Outcome()
    saved_argv, saved_cwd = sys.argv, os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
        streams[0].write_bytes(stdin)
        os.chdir(cwd)
        try:
            with standard_streams(*streams):
                allennlp(arguments)
        except SystemExit as exit:
            outcome.status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        except Exception as error:
            outcome.status = 1
            outcome.error = f"{type(error).__module__}.{type(error).__qualname__}"
            outcome.message, outcome.traceback = str(error), traceback.format_exc()
            outcome.explanation = getattr(error, "explanation", "")
        finally:
            os.chdir(saved_cwd)
            sys.argv = saved_argv
        if outcome.status:
            # The traceback held the output file, whose end is written when it goes.
            gc.collect()
        outcome.stdout, outcome.stderr = streams[1].read_bytes(), streams[2].read_text("utf-8")
    if output is not None and output.exists():
        outcome.output = output.read_bytes()
    return outcome


class Runner:
    """A process that runs commands. It is started when first needed, and again if one hung."""

    def __init__(self) -> None:
        self._process: Optional["subprocess.Popen[bytes]"] = None
        self._connection: Optional[Connection] = None

    def run(self, arguments: Sequence[str], timeout: float = 100.0, **more: Any) -> Outcome:
        """`call`, over there. Raises `TimeoutError` when it takes more than `timeout` seconds."""
        if self._process is None:
            self._connection, theirs = Pipe()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.running", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            theirs.close()
        assert self._connection is not None
        self._connection.send((list(arguments), more))
        if not self._connection.poll(timeout):
            self.close()
            raise TimeoutError(f"{arguments} took more than {timeout} seconds")
        try:
            outcome: Outcome = self._connection.recv()
            return outcome
        except EOFError:
            self.close()
            raise RuntimeError(f"the process died of {arguments}")

    @property
    def pids(self) -> List[int]:
        """This process and its helpers."""
        if self._process is None or self._process.poll() is not None:
            return []
        process = psutil.Process(self._process.pid)
        return [process.pid, *(child.pid for child in process.children(recursive=True))]

    def close(self) -> None:
        if self._process is not None and self._connection is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._connection.close()
            self._process = None


# Processes that outlive a test. They are no workers, and a test must not kill them as one.
RUNNERS: Dict[str, Any] = {"predict": Runner(), "parallel-predict": Runner()}


def serve(connection: Connection) -> None:
    while True:
        try:
            arguments, more = connection.recv()
        except EOFError:
            return
        outcome = call(arguments, **more)
        outcome.leftover = leftover_children()
        connection.send(outcome)


if __name__ == "__main__":
    # `Outcome` must be the class that the tests know, not one of this program's own.
    from tests.support import running

    running.serve(Connection(int(sys.argv[1])))
