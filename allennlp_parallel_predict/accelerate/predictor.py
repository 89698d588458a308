"""What makes a worker's predictor faster: the one place where accelerators are entered."""

from allennlp.predictors import Predictor

from allennlp_parallel_predict.accelerate.fast_json import dump_faster
from allennlp_parallel_predict.accelerate.finished_beams import decode_live_beams_only
from allennlp_parallel_predict.accelerate.packed_weights import pack_weights, use_packed_weights
from allennlp_parallel_predict.accelerate.padding import skip_padding
from allennlp_parallel_predict.accelerate.precision import compute_in
from allennlp_parallel_predict.common.messages import Precision


def tune_predictor(
    predictor: Predictor, exact: bool, precision: Precision = Precision.FP32
) -> None:
    """
    Makes a worker's predictor, whose model only predicts from now on, faster. If `exact`, its
    output stays the same to the bit; else last digits may differ, or more with a `precision`.
    """
    dump_faster(predictor)
    if precision == Precision.FP32:  # the packed weights are
        if not exact:
            pack_weights(predictor._model, exact)
        use_packed_weights(predictor._model, exact)
    decode_live_beams_only(predictor._model, exact)
    skip_padding(predictor._model, exact)
    compute_in(predictor._model, precision)


def prepare_for_forks(predictor: Predictor, exact: bool) -> None:
    """Computes, in the process that workers are forked from, what they can share."""
    pack_weights(predictor._model, exact)
