"""What runs batches: in this process, in a pool of processes, or on a Ray cluster."""

from allennlp_parallel_predict.executors.base import Executor, WorkerCounts
from allennlp_parallel_predict.executors.in_process import InProcessExecutor
from allennlp_parallel_predict.executors.pool.executor import ProcessPoolExecutor

__all__ = ["Executor", "InProcessExecutor", "ProcessPoolExecutor", "WorkerCounts"]
