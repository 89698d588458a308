"""The names that the package exports. Importing this registers the subcommands and classes."""

from allennlp_parallel_predict.api.async_predictor import AsyncPredictor
from allennlp_parallel_predict.api.statistics import Statistics
from allennlp_parallel_predict.api.predictor import ParallelPredictor
from allennlp_parallel_predict.commands.compare import ParallelCompare
from allennlp_parallel_predict.commands.predict import ParallelPredict
from allennlp_parallel_predict.commands.tune import ParallelTune
from allennlp_parallel_predict.common.errors import (
    ArchiveError,
    ExplainedError,
    Interrupted,
    JoinError,
    ModelStateError,
    OutputChanged,
    OutputClosed,
    ParallelPredictError,
    PredictionError,
    PredictorClosed,
    QueueFull,
    ResumeError,
    SettingsError,
    TooManyErrors,
    WorkerDied,
    WorkerError,
    WorkerTimeout,
)
from allennlp_parallel_predict.common.messages import (
    Batch,
    BatchKind,
    BatchResult,
    Failure,
    OnError,
    WorkerOptions,
)
from allennlp_parallel_predict.common.remote_errors import RemoteError, RemoteTraceback
from allennlp_parallel_predict.data.batching import Batching, BucketBatching, InOrderBatching
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.data.sources import Source
from allennlp_parallel_predict.executors import Executor, InProcessExecutor, ProcessPoolExecutor
from allennlp_parallel_predict.executors.base import WorkerCounts
from allennlp_parallel_predict.executors.ray.executor import RayExecutor
from allennlp_parallel_predict.settings import Settings

__all__ = [
    "ArchiveError",
    "AsyncPredictor",
    "Batch",
    "BatchKind",
    "BatchResult",
    "Batching",
    "BucketBatching",
    "Executor",
    "ExplainedError",
    "Failure",
    "InOrderBatching",
    "InProcessExecutor",
    "Input",
    "Interrupted",
    "JoinError",
    "ModelStateError",
    "OnError",
    "OutputChanged",
    "OutputClosed",
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
    "RemoteError",
    "RemoteTraceback",
    "ResumeError",
    "Settings",
    "SettingsError",
    "Source",
    "Statistics",
    "TooManyErrors",
    "WorkerCounts",
    "WorkerDied",
    "WorkerError",
    "WorkerOptions",
    "WorkerTimeout",
]
