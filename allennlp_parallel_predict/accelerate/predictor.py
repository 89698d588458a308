"""What makes a worker's predictor faster: the one place where accelerators are entered."""

from allennlp.predictors import Predictor

from allennlp_parallel_predict.accelerate.fast_json import dump_faster
from allennlp_parallel_predict.accelerate.finished_beams import decode_live_beams_only
from allennlp_parallel_predict.accelerate.padding import skip_padding


def tune_predictor(predictor: Predictor, exact: bool) -> None:
    """
    Makes a worker's predictor faster.

    # Parameters

    predictor : `Predictor`
        The predictor, whose model only predicts from now on.
    exact : `bool`
        Whether the output has to be the same to the bit; else last digits may differ.
    """
    dump_faster(predictor)
    decode_live_beams_only(predictor._model, exact)
    skip_padding(predictor._model, exact)
