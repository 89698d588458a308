from allennlp_parallel_predict.executors.executor import Executor, WorkerCounts
from allennlp_parallel_predict.executors.in_process import InProcessExecutor
from allennlp_parallel_predict.executors.process_pool import ProcessPoolExecutor
from allennlp_parallel_predict.executors.ray import RayExecutor

__all__ = ["Executor", "InProcessExecutor", "ProcessPoolExecutor", "RayExecutor", "WorkerCounts"]
