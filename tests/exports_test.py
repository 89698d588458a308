"""The names that users import, and what a type checker says about code that uses them."""

import subprocess
import sys
from pathlib import Path

import pytest

import allennlp_parallel_predict

NAMES = """
ArchiveError AsyncPredictor Batch BatchKind BatchResult Batching BucketBatching Executor
ExplainedError Failure InOrderBatching InProcessExecutor Input Interrupted JoinError
ModelStateError
OnError OutputChanged OutputClosed ParallelCompare ParallelPredict ParallelPredictError
ParallelPredictor ParallelTune PredictionError PredictorClosed ProcessPoolExecutor QueueFull
RayExecutor RemoteError RemoteTraceback ResumeError Settings SettingsError Source Statistics
TooManyErrors WorkerCounts WorkerDied WorkerError WorkerOptions WorkerTimeout
""".split()

USER_CODE = """
import asyncio
from pathlib import Path
from typing import Any, AsyncIterator, Dict, Iterator, List

from allennlp_parallel_predict import AsyncPredictor, ParallelPredictor, Statistics


def plain() -> List[Dict[str, Any]]:
    with ParallelPredictor.from_path(
        Path("model.tar.gz"), num_workers=4, settings={"executor.start_method": "spawn"}
    ) as predictor:
        one: Dict[str, Any] = predictor.predict_json({"source": "word"})
        stream: Iterator[Dict[str, Any]] = predictor.predict_stream([one], ordered=False)
        statistics: Statistics = predictor.statistics()
        print(statistics.waiting, next(stream).keys())
        return predictor.predict_batch_json([{"source": "word"}], batch_size=8, on_error="skip")


async def inputs() -> AsyncIterator[Dict[str, Any]]:
    yield {"source": "word"}


async def asynchronous() -> Dict[str, Any]:
    async with AsyncPredictor.from_path("model.tar.gz", max_batch_size=8) as predictor:
        async for output in predictor.predict_stream(inputs()):
            print(output.keys())
        async for output in predictor.predict_stream([{"source": "word"}]):
            print(output.keys())
        return await predictor.predict_json({"source": "word"}, timeout=1.0)


asyncio.run(asynchronous())
"""

WRONG_CODE = """
from allennlp_parallel_predict import AsyncPredictor, ParallelPredictor

predictor = ParallelPredictor.from_path("model.tar.gz", num_workers="four")
predictor.predict_json("not a dictionary")
predictor.predict_stream([{}], ordred=False)
predictor.predict_json({}).keyz()
AsyncPredictor.from_path("model.tar.gz").predict_json({}).keys()
"""


def test_the_names_are_these():
    assert sorted(allennlp_parallel_predict.__all__) == sorted(NAMES)
    assert all(hasattr(allennlp_parallel_predict, name) for name in NAMES)


def test_every_public_exception_is_exported():
    from allennlp_parallel_predict.common import errors

    exceptions = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type)
        and issubclass(value, BaseException)
        and value.__module__ == errors.__name__
    }
    assert len(exceptions) > 10 and exceptions <= {*NAMES}


@pytest.mark.timeout(600)
def test_code_of_users_is_checked_by_mypy(tmp_path):
    pytest.importorskip("mypy")
    (tmp_path / "right.py").write_text(USER_CODE)
    (tmp_path / "wrong.py").write_text(WRONG_CODE)
    root = Path(allennlp_parallel_predict.__file__).parent.parent
    config = tmp_path / "mypy.ini"
    # As for an installed package: what is wrong inside of it is not shown.
    config.write_text(
        "[mypy]\nstrict = true\n[mypy-allennlp.*]\nfollow_imports = skip\n"
        "[mypy-allennlp_parallel_predict.*]\nfollow_imports = silent\n"
        "[mypy-torch.*]\nfollow_imports = skip\n[mypy-overrides.*,psutil.*]\n"
        "follow_imports = skip\nignore_missing_imports = true\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", str(config)]
    command += ["--cache-dir", str(tmp_path / "cache"), "right.py", "wrong.py"]
    checked = subprocess.run(
        command, cwd=tmp_path, env={"MYPYPATH": str(root)}, stdout=subprocess.PIPE, timeout=590
    )
    lines = checked.stdout.decode().splitlines()
    errors = [line for line in lines if ": error:" in line]
    assert [line for line in errors if line.startswith("right.py")] == [], errors
    wrong = {line.split(":")[1] for line in errors if line.startswith("wrong.py")}
    assert wrong == {"4", "5", "6", "8"} or wrong == {"4", "5", "6", "7", "8"}, errors
