"""A predictor that does what some inputs tell it to: `{"source": "word", "do": "kill"}`."""

import os
import signal
import time
from typing import List

from allennlp.common.util import JsonDict
from allennlp.predictors import Predictor
from allennlp_models.generation.predictors import Seq2SeqPredictor

FAULTS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(7),
    "memory": lambda: bytearray(1 << 62),
    "hang": lambda: time.sleep(3600),
    "slow": lambda: time.sleep(0.3),
}


@Predictor.register("chaos")
class ChaosPredictor(Seq2SeqPredictor):
    """Grapheme-to-phoneme conversion, with faults."""

    def predict_json(self, inputs: JsonDict) -> JsonDict:
        _act(inputs)
        return super().predict_json(inputs)

    def predict_batch_json(self, inputs: List[JsonDict]) -> List[JsonDict]:
        for item in inputs:
            _act(item)
        return super().predict_batch_json(inputs)


def _act(item: JsonDict) -> None:
    if "do" in item:
        FAULTS[item["do"]]()
