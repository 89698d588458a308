"""Runs faulty predictors: on an executor in this process, or by the command in a fork of it."""

import contextlib
import json
import os
import signal
import sys
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Optional, Sequence

import psutil
import torch
from allennlp.common import plugins
from allennlp.data import Vocabulary

import allennlp_parallel_predict  # noqa: F401  (registers the subcommand)
from allennlp_parallel_predict.common.messages import OnError, WorkerOptions
from allennlp_parallel_predict.data.batching import Batching, InOrderBatching
from allennlp_parallel_predict.data.files import OutputFile
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.data.sinks import ENCODING, OutputPosition, Sink
from allennlp_parallel_predict.data.sources import Source
from allennlp_parallel_predict.executors import Executor, ProcessPoolExecutor
from allennlp_parallel_predict.pipeline.pipeline import Pipeline
from allennlp_parallel_predict.pipeline.progress import Progress
from allennlp_parallel_predict.pipeline.signals import Interrupts
from tests.fixtures.faulty_predictors import FaultyModel, FaultyPredictor, FaultyReader
from tests.support.running import allennlp

torch.set_num_threads(1)


class ListSource(Source):
    """Lines from anywhere, one JSON object each unless it is text already."""

    def __init__(self, values: Iterable[Any]) -> None:
        self.values = values
        self.read = 0

    def __iter__(self) -> Iterator[Optional[Input]]:
        for position, value in enumerate(self.values):
            self.read = position + 1
            yield Input(position, position + 1, as_line(value))


def as_line(value: Any) -> str:
    return (value if isinstance(value, str) else json.dumps(value)) + "\n"


def numbered(count: int, faults: Optional[Dict[int, Any]] = None) -> List[Any]:
    """Inputs 0 to `count`; `faults` gives some a fault, by name or in full, or other text."""
    inputs: List[Any] = [{"n": n} for n in range(count)]
    for n, fault in (faults or {}).items():
        if isinstance(fault, dict):
            inputs[n].update(fault)
        elif fault.startswith("text:"):
            inputs[n] = fault[len("text:") :]
        else:
            inputs[n]["do"] = fault
    return inputs


def expected(numbers: Iterable[int]) -> str:
    """What `FaultyPredictor` writes for these."""
    predictor = predictor_of()
    outputs = predictor.predict_batch_json([{"n": n} for n in numbers])
    return "".join(map(predictor.dump_line, outputs))


def without(count: int, *lost: int) -> str:
    """The same for the inputs 0 to `count` but these."""
    return expected(n for n in range(count) if n not in lost)


def predictor_of(predictor: Any = FaultyPredictor, **model: Any) -> Any:
    return predictor(FaultyModel(Vocabulary(), **model), FaultyReader())


@dataclass
class Ran:
    path: Path
    errors: List[Dict[str, Any]]
    written: OutputPosition
    executor: Executor
    restarts: int
    seconds: float

    @property
    def output(self) -> str:
        return self.path.read_text()

    @property
    def failed(self) -> List[int]:
        """The positions of the inputs that failed."""
        return [error["line"] - 1 for error in self.errors]


def run(
    inputs: Any,
    folder: Path,
    batch_size: int = 4,
    on_error: str = "skip",
    max_errors: Optional[int] = None,
    predictor: Any = None,
    executor: Optional[Executor] = None,
    batching: Optional[Batching] = None,
    **pool: Any,
) -> Ran:
    """Predicts with a real pool of two workers, or as `pool` says."""
    executor = executor or ProcessPoolExecutor(**{"num_workers": 2, **pool})
    source = inputs if isinstance(inputs, Source) else ListSource(inputs)
    output, errors = folder / "output", folder / "errors"
    sink = Sink(
        OutputFile(str(output)),
        OutputFile(str(errors)),
        print_to_console=False,
        on_error=OnError(on_error),
    )
    started = time.monotonic()
    with executor.preparing():
        encodings = [] if on_error == "raise" else [(ENCODING, "strict")]
        options = WorkerOptions(
            OnError(on_error), output_encodings=encodings, may_group=batch_size == 1
        )
        executor.start(predictor or predictor_of(), options)
        try:
            Pipeline(
                source,
                batching or InOrderBatching(batch_size),
                executor,
                sink,
                progress=Progress("never", [source], False),
                interrupts=Interrupts(),
                max_errors=max_errors,
            ).run()
            restarts = executor.counts().restarts
            executor.close()
        finally:
            executor.kill()
            sink.close()
    return Ran(
        output,
        [json.loads(line) for line in errors.read_text().splitlines()],
        sink.written,
        executor,
        restarts,
        time.monotonic() - started,
    )


def faulty_archive(folder: Path, name: str = "faulty.tar.gz", **model: Any) -> Path:
    """An archive for `--predictor faulty --include-package faulty_predictors`."""
    content = folder / "content"
    content.mkdir(parents=True, exist_ok=True)
    config = {"dataset_reader": {"type": "faulty"}, "model": {"type": "faulty", **model}}
    (content / "config.json").write_text(json.dumps(config))
    weights = FaultyModel(Vocabulary()).state_dict()
    torch.save(weights, content / "weights.th")
    Vocabulary().save_to_files(str(content / "vocabulary"))
    with tarfile.open(folder / name, "w:gz") as tar:
        for path in sorted(content.iterdir()):
            tar.add(path, path.name)
    return folder / name


class Command:
    """
    `allennlp ARGUMENTS` in a process of its own: a fork of this one, which starts at once, or at
    SIGCONT if `is_stopped`. If this one is root's, `user` is whose it is.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        stdin: Optional[int] = None,
        is_stopped: bool = False,
        user: Optional[int] = None,
    ) -> None:
        self.folder = folder
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            if is_stopped:
                os.kill(os.getpid(), signal.SIGSTOP)
            if user is not None and not os.getuid():
                # The real one alone, which access(2) asks: Python may be in a folder of root's.
                os.setreuid(user, -1)
            _be_command(arguments, folder, stdin)
        self.process = psutil.Process(self.pid)
        self.status: Optional[int] = None

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def workers(self) -> List[psutil.Process]:
        return list(self.process.children(recursive=True))

    def has_ended(self) -> bool:
        return bool(self.process.status() == psutil.STATUS_ZOMBIE)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float = 60.0) -> int:
        """The exit status; negative for a signal."""
        deadline = time.monotonic() + timeout
        while self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else status >> 8
            elif time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"still there after {timeout} s; stderr:\n{self.stderr}")
            else:
                time.sleep(0.005)
        return self.status


def _be_command(arguments: Sequence[str], folder: Path, stdin: Optional[int]) -> None:
    status = 1
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin, 0)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), number)
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
        sys.stderr = open(2, "w", 1, closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        vars(plugins)["DEFAULT_PLUGINS"] = ()  # importing them takes longer than all the rest
        try:
            allennlp(arguments)
            status = 0
        except SystemExit as exit:
            status = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


@contextlib.contextmanager
def command(archive: Path, source: Any, *flags: Any, **more: Any) -> Iterator[Command]:
    """`parallel-predict` on a faulty archive, ended at the end of the block."""
    arguments = ["parallel-predict", str(archive), str(source), "--predictor", "faulty"]
    arguments += ["--include-package", "tests.fixtures.faulty_predictors", *map(str, flags)]
    started = Command(arguments, **more)
    try:
        yield started
    finally:
        if started.status is None:
            with contextlib.suppress(ProcessLookupError):
                started.signal(signal.SIGKILL)
            started.wait()


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Waits for something that is true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def settings(**changes: Any) -> List[str]:
    """`settings(executor_num_workers=3)`: `--parallel-overrides` with a dot at the first `_`."""
    sections = ("executor_", "batching_")
    dotted = {
        key.replace("_", ".", 1) if key.startswith(sections) else key: value
        for key, value in changes.items()
    }
    return ["--parallel-overrides", json.dumps(dotted)]
