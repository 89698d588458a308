"""
The predictors of the benchmark: AllenNLP's own, which also write down when they finished a batch.

Whatever runs such a predictor, in however many processes, is thereby timed in the same way, and
from the outside. (CLOCK_MONOTONIC is one clock for all processes.) Use with
`--include-package benchmarks.predictors`.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any, Dict, List

import torch
from allennlp.common.util import JsonDict
from allennlp.data import DatasetReader, Instance, Vocabulary
from allennlp.data.tokenizers import WhitespaceTokenizer
from allennlp.models import Model
from allennlp.predictors import Predictor, SentenceTaggerPredictor, TextClassifierPredictor
from allennlp_models.generation.predictors import Seq2SeqPredictor
from overrides import overrides

# fairscale, which AllenNLP requires, comes with a package `benchmarks` too, and what is imported by
# allennlp_models puts its folder in front. A spawned worker looks where its parent would.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

EVENTS = "BENCHMARK_EVENTS"
"""The environment variable that names the file of events."""


def note(lines: int) -> None:
    """Writes down that this process has just predicted so many lines."""
    path = os.environ.get(EVENTS)
    if path:
        event = f"{os.getpid()} {time.monotonic():.6f} {lines}\n"
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(file, event.encode())  # in one piece, whoever else writes
        os.close(file)


class Timed(Predictor):
    """Mixed into a predictor, notes when it has predicted what."""

    @overrides
    def predict_instance(self, instance: Instance) -> JsonDict:
        output = super().predict_instance(instance)
        note(1)
        return output

    @overrides
    def predict_batch_instance(self, instances: List[Instance]) -> List[JsonDict]:
        outputs = super().predict_batch_instance(instances)
        note(len(instances))
        return outputs


@Predictor.register("timed_text_classifier")
class TimedTextClassifier(Timed, TextClassifierPredictor):
    """`text_classifier`, timed."""


@Predictor.register("timed_seq2seq")
class TimedSeq2Seq(Timed, Seq2SeqPredictor):
    """`seq2seq`, timed."""


@Predictor.register("timed_tagger")
class TimedTagger(Timed, SentenceTaggerPredictor):
    """`sentence_tagger`, timed, and without spaCy's model, which no package index has."""

    def __init__(self, model: Any, dataset_reader: Any) -> None:
        Predictor.__init__(self, model, dataset_reader)
        self._tokenizer = WhitespaceTokenizer()


class _NoModelNeeded(Predictor):
    """
    Takes a line as it is and gives it back: what is left is the work of the pool. (The types are
    those of the methods that it overrides, which nobody checks.)
    """

    @overrides
    def load_line(self, line: str) -> JsonDict:
        return line  # type: ignore[return-value]

    @overrides
    def dump_line(self, outputs: JsonDict) -> str:
        return outputs  # type: ignore[return-value]

    @overrides
    def predict_json(self, inputs: JsonDict) -> JsonDict:
        return self.predict_batch_json([inputs])[0]


@Predictor.register("echo")
class Echo(_NoModelNeeded):
    """Gives back what it gets."""

    @overrides
    def predict_batch_json(self, inputs: List[JsonDict]) -> List[JsonDict]:
        return inputs


@Predictor.register("sleeper")
class Sleeper(_NoModelNeeded):
    """
    Waits instead of computing: a line is a number and seconds, and a batch takes as long as its
    first line says. So hundreds of workers can be simulated on a machine with two cores.
    """

    @overrides
    def predict_batch_json(self, inputs: List[JsonDict]) -> List[JsonDict]:
        time.sleep(float(str(inputs[0]).split()[1]))
        return inputs


class _Nothing(Model):
    """A model, because a predictor has one, with a parameter, because it asks where that is."""

    def __init__(self) -> None:
        super().__init__(Vocabulary())
        self.nothing = torch.nn.Parameter(torch.zeros(1))

    def forward(self, **tensors: Any) -> Dict[str, torch.Tensor]:
        raise NotImplementedError


def without_model(name: str) -> Predictor:
    """The predictor `echo` or `sleeper`."""
    return Predictor.by_name(name)(_Nothing(), DatasetReader())
