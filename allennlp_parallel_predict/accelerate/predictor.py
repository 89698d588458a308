"""What makes a worker's predictor faster: the one place where accelerators are entered."""

import functools
from typing import Any

import torch
from allennlp.models import Model
from allennlp.predictors import Predictor

from allennlp_parallel_predict.accelerate.beam_search import use_row_copies
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
    model = predictor._model
    use_inference_mode(model)
    remember_device(model)
    use_row_copies()
    decode_live_beams_only(model, exact)
    skip_padding(model, exact)


def remember_device(model: Model) -> None:
    """Spares each batch a look at all parameters (a millisecond, of a small BERT)."""
    method = model._get_prediction_device
    if getattr(method, "__func__", None) is Model._get_prediction_device:
        # Not called now, as it may raise an error.
        model._get_prediction_device = functools.lru_cache(None)(method)  # type: ignore


def use_inference_mode(model: Model) -> None:
    """
    Runs `forward_on_instances` in torch's inference mode, which keeps fewer books than the
    `no_grad` that AllenNLP sets there. A model that turns gradients on inside is run as before.
    """
    forward_on_instances = model.forward_on_instances
    works = True

    @functools.wraps(forward_on_instances)
    def in_inference_mode(*args: Any, **kwargs: Any) -> Any:
        nonlocal works
        if works:
            try:
                with torch.inference_mode():
                    return forward_on_instances(*args, **kwargs)
            except RuntimeError as error:
                # "element 0 of tensors does not require grad", "Inference tensors cannot be saved"
                if "grad" not in str(error) and "nference" not in str(error):
                    raise
                works = False
        return forward_on_instances(*args, **kwargs)

    model.forward_on_instances = in_inference_mode  # type: ignore[assignment]
