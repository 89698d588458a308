"""The names that the package exports. Importing this registers the subcommands and classes."""

from allennlp_parallel_predict.api.async_predictor import AsyncPredictor
from allennlp_parallel_predict.api.statistics import Statistics
from allennlp_parallel_predict.api.predictor import ParallelPredictor
from allennlp_parallel_predict.commands.compare import ParallelCompare
from allennlp_parallel_predict.commands.predict import ParallelPredict
from allennlp_parallel_predict.commands.tune import ParallelTune
from allennlp_parallel_predict.common.errors import (
    ModelStateError,
    ParallelPredictError,
    PredictionError,
    PredictorClosed,
    QueueFull,
    SettingsError,
    WorkerDied,
    WorkerError,
    WorkerTimeout,
)
from allennlp_parallel_predict.common.remote_errors import RemoteTraceback
from allennlp_parallel_predict.data.batching import Batching, BucketBatching, InOrderBatching
from allennlp_parallel_predict.executors import Executor, InProcessExecutor, ProcessPoolExecutor
from allennlp_parallel_predict.executors.ray.executor import RayExecutor
from allennlp_parallel_predict.settings import Settings

__all__ = [
    "AsyncPredictor",
    "Batching",
    "BucketBatching",
    "Executor",
    "InOrderBatching",
    "InProcessExecutor",
    "ModelStateError",
    "ParallelCompare",
    "ParallelPredict",
    "ParallelPredictError",
    "ParallelPredictor",
    "ParallelTune",
    "PredictionError",
    "PredictorClosed",
    "ProcessPoolExecutor",
    "QueueFull",
    "RayExecutor",
    "RemoteTraceback",
    "Settings",
    "SettingsError",
    "Statistics",
    "WorkerDied",
    "WorkerError",
    "WorkerTimeout",
]
