"""Hooks on AllenNLP: every target is there, is timed, and is put back."""

import json

import pytest
from allennlp.data import Batch
from allennlp.nn import util
from allennlp.predictors import predictor as predictor_module

from allennlp_parallel_predict.common import stages
from allennlp_parallel_predict.common.stopwatch import Stopwatch
from allennlp_parallel_predict.executors import InProcessExecutor
from allennlp_parallel_predict.worker.hooks import Lengths, Patches, watch_predictor
from tests.fixtures.timed_predictors import OverridingPredictor, TimedPredictor, TimedReader
from tests.support.profiles import profiled


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


class TestARun:
    OWNERS = [Batch, util, predictor_module, TimedReader]

    def test_nothing_is_left(self, tmp_path):
        predictor = TimedPredictor()
        executor = InProcessExecutor()
        objects = [predictor, predictor._model, predictor._dataset_reader, executor, *self.OWNERS]
        before = [dict(vars(owner)) for owner in objects]
        profiled([{"forward": 0.001}] * 8, tmp_path, predictor=predictor, executor=executor)
        for owner, attributes in zip(objects, before):
            after = dict(vars(owner))
            if owner is executor:  # its own state, but none of our functions
                after = {name: after[name] for name in after if callable(after[name])}
                attributes = {name: attributes[name] for name in after}
            assert after == attributes, owner

    @pytest.mark.parametrize("kind", [staticmethod, classmethod])
    def test_a_reader_with_a_method_of_the_class(self, tmp_path, kind, monkeypatch):
        method = TimedReader.text_to_instance

        def text_to_instance(*args):
            (inputs,) = args if kind is staticmethod else args[1:]
            return method(None, inputs)

        monkeypatch.setattr(TimedReader, "text_to_instance", kind(text_to_instance))
        predictor = OverridingPredictor()
        ran = profiled([{"instance": 0.02}] * 4, tmp_path, predictor=predictor, num_workers=1)
        assert ran.report["stages"]["JSON to instance"] >= 0.08

    def test_nothing_is_left_after_an_error(self, tmp_path):
        before = [dict(vars(owner)) for owner in self.OWNERS]
        with pytest.raises(json.JSONDecodeError):
            profiled(["no JSON"], tmp_path)
        assert [dict(vars(owner)) for owner in self.OWNERS] == before

    def test_the_output_is_the_same_and_without_a_profile_there_is_none(self, tmp_path):
        inputs = [{"length": n % 5 + 1} for n in range(40)]
        plain = profiled(inputs, tmp_path, is_profiled=False)
        assert profiled(inputs, tmp_path).output == plain.output
        assert profiled(inputs, tmp_path, executor=InProcessExecutor()).output == plain.output
