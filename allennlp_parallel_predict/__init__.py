"""
`allennlp predict` for people with a lot of input.

Importing this package registers its subcommand and classes; that is how AllenNLP finds plugins.
"""

from allennlp_parallel_predict.aio import AsyncPredictor
from allennlp_parallel_predict.batching import Batching, BucketBatching, InOrderBatching
from allennlp_parallel_predict.command import ParallelPredict
from allennlp_parallel_predict.driver import Statistics
from allennlp_parallel_predict.errors import (
    ModelStateError,
    ParallelPredictError,
    PredictionError,
    PredictorClosed,
    QueueFull,
    RemoteTraceback,
    SettingsError,
    WorkerDied,
    WorkerError,
    WorkerTimeout,
)
from allennlp_parallel_predict.executors import Executor, InProcessExecutor, ProcessPoolExecutor
from allennlp_parallel_predict.predictor import ParallelPredictor
from allennlp_parallel_predict.profiling.compare import ParallelCompare
from allennlp_parallel_predict.settings import Settings
from allennlp_parallel_predict.tune import ParallelTune

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
    "RemoteTraceback",
    "Settings",
    "SettingsError",
    "Statistics",
    "WorkerDied",
    "WorkerError",
    "WorkerTimeout",
]
