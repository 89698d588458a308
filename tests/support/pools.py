"""Opens the Python interfaces on faulty predictors, for their tests."""

import asyncio
import gc
import json
import os
import signal
import time
import traceback
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List

import psutil

from allennlp_parallel_predict import AsyncPredictor, ParallelPredictor
from allennlp_parallel_predict.api.request_queue import QueueSettings
from allennlp_parallel_predict.settings import Settings, build_settings, read_settings
from tests.support.faults import predictor_of
from tests.support.running import workers

ROOT = Path(__file__).parent.parent.parent
ARCHIVE = ROOT / "examples" / "g2p" / "model.tar.gz"
WORDS = [json.loads(line) for line in open(ROOT / "examples" / "g2p" / "words.jsonl")][:40]


def settings_of(
    num_workers: int = 2, batching: Any = "in_order", on_error: str = "raise", **executor: Any
) -> Settings:
    if executor.get("type") != "in_process":
        executor["num_workers"] = num_workers
    values = {"executor": executor, "batching": batching, "on_error": on_error}
    return build_settings(read_settings(overrides=json.dumps(values)))


def faulty(
    model: Dict[str, Any] = {}, max_batch_size: int = 1, **settings: Any
) -> ParallelPredictor:
    return ParallelPredictor(
        lambda: predictor_of(**model), settings_of(**settings), QueueSettings(max_batch_size)
    )


def numbers(outputs: Iterable[Any]) -> List[Any]:
    return [output["n"] for output in outputs]


def assert_collected() -> None:
    """Nobody uses the predictor any more, and so its workers end."""
    deadline = time.monotonic() + 10
    while workers() and time.monotonic() < deadline:
        gc.collect()  # again, as the driver may just then have held on to it
        psutil.wait_procs(workers(), timeout=0.2)
    assert not workers()


def in_fork(function: Callable[[], None], timeout: float = 60.0) -> None:
    """Runs a function in a copy of this process, which has no threads but may get some there."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
            return
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise TimeoutError("it hangs")


def faulty_async(
    num_workers: int = 2,
    model: Dict[str, Any] = {},
    on_error: str = "raise",
    max_retries: int = 1,
    **options: Any,
) -> AsyncPredictor:
    settings = settings_of(num_workers, on_error=on_error, max_retries=max_retries)
    queue = QueueSettings(**{"max_batch_size": 32, **options})
    return AsyncPredictor(lambda: predictor_of(**model), settings, queue)


async def ticks(count: int) -> List[float]:
    """
    The CPU seconds that the event loop's thread spends between ticks, sorted. Unlike the time by
    the clock, they are the same on a machine that others use.
    """
    busy = []
    for _ in range(count):
        start = time.thread_time()
        await asyncio.sleep(0.001)
        busy.append(time.thread_time() - start)
    return sorted(busy)
