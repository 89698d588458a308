"""Where accelerators are entered."""

import pytest
import torch

from allennlp_parallel_predict.accelerate import packed_weights
from allennlp_parallel_predict.accelerate.predictor import prepare_for_forks, tune_predictor
from tests.support.faults import predictor_of


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_printed_stays_the_same(exact):
    plain, tuned = predictor_of(), predictor_of()
    tune_predictor(tuned, exact)
    output = {"n": 3, "pad": "ü", "scores": [0.1, float("inf")]}
    assert tuned.dump_line(output) == plain.dump_line(output)
    assert tuned.predict_json({"n": 1}) == plain.predict_json({"n": 1})


@pytest.mark.parametrize("exact", [True, False])
def test_weights_are_packed_before_a_fork_where_that_pays(exact):
    predictor = predictor_of()
    predictor._model.add_module("large", torch.nn.Linear(512, 512).eval())
    prepare_for_forks(predictor, exact)
    assert (predictor._model.large in packed_weights._packed) == packed_weights._pays(exact)
    assert not packed_weights.is_packed(predictor._model.large)  # workers alone use them
