from allennlp_parallel_predict.executors.executor import Executor, WorkerCounts
from allennlp_parallel_predict.executors.in_process import InProcessExecutor
from allennlp_parallel_predict.executors.process_pool import ProcessPoolExecutor

__all__ = ["Executor", "InProcessExecutor", "ProcessPoolExecutor", "WorkerCounts"]
