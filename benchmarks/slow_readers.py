"""
Dataset readers whose `text_to_instance` is the expensive part, as it is with a parser or a tagger
in it: each instance takes 4 ms of CPU time.
"""

import time
from typing import Any, Iterator

from allennlp.data import DatasetReader, Instance
from allennlp_models.generation.dataset_readers import Seq2SeqDatasetReader
from overrides import overrides

_SECONDS = 0.004


@DatasetReader.register("slow_sharding_seq2seq")
class SlowShardingReader(Seq2SeqDatasetReader):
    """Supports AllenNLP's sharding over workers, as `seq2seq` does."""

    @overrides
    def text_to_instance(self, *args: Any, **kwargs: Any) -> Instance:
        end = time.thread_time() + _SECONDS
        while time.thread_time() < end:
            pass
        return super().text_to_instance(*args, **kwargs)


@DatasetReader.register("slow_seq2seq")
class SlowReader(SlowShardingReader):
    """Does not support it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.manual_distributed_sharding = self.manual_multiprocess_sharding = False

    @overrides
    def _read(self, file_path: Any) -> Iterator[Instance]:
        with open(file_path) as file:
            for line in file:
                yield self.text_to_instance(*line.rstrip("\n").split("\t"))
