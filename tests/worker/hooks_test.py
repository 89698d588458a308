"""Hooks on AllenNLP: every target is there, is timed, and is put back."""

import pytest
from allennlp.data import Batch
from allennlp.nn import util

from allennlp_parallel_predict.common import stages
from allennlp_parallel_predict.common.stopwatch import Stopwatch
from allennlp_parallel_predict.worker.hooks import Lengths, Patches, watch_predictor
from tests.fixtures.timed_predictors import OverridingPredictor, TimedPredictor


def watched(predictor):
    watch, lengths, patches = Stopwatch("base"), Lengths(), Patches()
    watch_predictor(predictor, watch, lengths, patches)
    return watch, lengths, patches


@pytest.mark.parametrize("make", [TimedPredictor, OverridingPredictor])
def test_no_target_is_missing_in_this_allennlp(make):
    predictor = make()
    before = [dict(vars(owner)) for owner in (Batch, util, type(predictor._dataset_reader))]
    watch, lengths, patches = watched(predictor)
    try:
        assert patches.missing == []
        predictor.predict_batch_json([{"length": 2}, {"length": 5}])
        seconds = watch.take()[0]
        expected = {stages.TO_INSTANCE, stages.INDEXING, stages.FORWARD, stages.TO_DEVICE}
        expected |= {stages.READABLE, stages.SPLITTING, stages.SANITIZE, stages.PREDICTOR}
        assert expected <= set(seconds)
        assert (lengths.instances, lengths.tokens, lengths.padded) == ([2, 5], 7, 10)
    finally:
        patches.undo()
    after = [dict(vars(owner)) for owner in (Batch, util, type(predictor._dataset_reader))]
    assert after == before


def test_a_target_that_is_gone_is_reported(monkeypatch, caplog):
    monkeypatch.delattr(util, "move_to_device")
    _, _, patches = watched(TimedPredictor())
    patches.undo()
    assert patches.missing == ["move_to_device"]
    assert "no stage for move_to_device" in caplog.text
