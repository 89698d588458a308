"""
`allennlp predict` for people with a lot of input.

Importing this package registers its subcommand and classes; that is how AllenNLP finds plugins.
"""

from allennlp_parallel_predict.batching import Batching, BucketBatching, InOrderBatching
from allennlp_parallel_predict.command import ParallelPredict
from allennlp_parallel_predict.executors import Executor, InProcessExecutor, ProcessPoolExecutor
from allennlp_parallel_predict.settings import Settings

__all__ = [
    "Batching",
    "BucketBatching",
    "Executor",
    "InOrderBatching",
    "InProcessExecutor",
    "ParallelPredict",
    "ProcessPoolExecutor",
    "Settings",
]
