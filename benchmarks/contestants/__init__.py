"""The contestants of the benchmark, by name, and the commands that run them."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional


class Contestant(NamedTuple):
    """
    A way to predict a file.

    The main ones are measured in every round, the others once or twice.
    """

    name: str
    title: str
    module: Optional[str] = None
    """The script among the contestants, or `None` for a command of AllenNLP."""
    subcommand: str = "predict"
    batch_size: int = 32
    settings: Optional[Dict[str, Any]] = None
    is_main: bool = False
    needs: Optional[str] = None
    """The package that it comes from."""
    may_hang: bool = False
    environment: Dict[str, str] = {}

    def is_available(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs) is not None

    def command(
        self, archive: Path, predictor: str, inputs: Path, output: Path, workers: int
    ) -> List[str]:
        size = ["--batch-size", str(self.batch_size)]
        if self.module is not None:
            command = [sys.executable, "-m", f"{__name__}.{self.module}", str(archive), predictor]
            return command + [str(inputs), str(output), *size, "--workers", str(workers)]
        package = "allennlp_parallel_predict"
        command = [sys.executable, "-m", package, self.subcommand, str(archive), str(inputs)]
        command += ["--output-file", str(output), "--silent", *size, "--predictor", predictor]
        command += ["--include-package", "benchmarks.predictors"]
        if self.settings is not None:
            settings = {**self.settings, "executor.num_workers": workers}
            command += ["--parallel-overrides", json.dumps(settings)]
        return command


def _ours(name: str, title: str, batch_size: int = 32, **settings: Any) -> Contestant:
    return Contestant(
        name, title, None, "parallel-predict", batch_size, settings=settings, is_main=True
    )


REFERENCE = "predict-1-thread"
"""What the outputs are compared to: as many threads as a worker has."""
REFERENCE_OF_1 = "predict-1-1-thread"
"""The same for those with batches of one."""


CONTESTANTS = [
    Contestant(
        REFERENCE,
        "allennlp predict, batch size 32, 1 thread",
        environment={"OMP_NUM_THREADS": "1"},
        is_main=True,
    ),
    Contestant(
        REFERENCE_OF_1,
        "allennlp predict, batch size 1, 1 thread",
        batch_size=1,
        environment={"OMP_NUM_THREADS": "1"},
        is_main=True,
    ),
    Contestant("predict-1", "allennlp predict, batch size 1", batch_size=1, is_main=True),
    Contestant("predict", "allennlp predict, batch size 32", is_main=True),
    Contestant(
        "naive", "Pool.starmap, predictor sent with each chunk", "naive_pool", may_hang=True
    ),
    Contestant("torch", "torch.multiprocessing pool, shared model", "torch_pool"),
    Contestant("asyncio", "asyncio.gather around predict_json", "asyncio_gather", batch_size=1),
    Contestant("shards", "shards by hand, predict with 1 thread each", "shards", is_main=True),
    Contestant("futures", "ProcessPoolExecutor with initializer", "futures_pool"),
    Contestant("joblib", "joblib (loky)", "joblib_pool", needs="joblib"),
    Contestant("pebble", "pebble", "pebble_pool", needs="pebble"),
    Contestant("mpire", "mpire", "mpire_pool", needs="mpire"),
    Contestant("ray", "Ray Data map_batches with actors", "ray_data", needs="ray"),
    # By default, as the benchmark's predictor is AllenNLP's but for the name.
    _ours(
        "ours-1",
        "parallel-predict, batch size 1",
        batch_size=1,
        **{"executor.operation_batching": True},
    ),
    _ours("ours", "parallel-predict"),
    _ours("ours-bucket", "parallel-predict, bucket", **{"batching.type": "bucket"}),
]
