"""Through which layers lines may pass together."""

import pytest
from allennlp.data.dataset_readers import TextClassificationJsonReader
from allennlp.data.tokenizers import WhitespaceTokenizer
from allennlp.models import BasicClassifier, load_archive
from allennlp.predictors import Predictor, TextClassifierPredictor

from allennlp_parallel_predict.accelerate import shared_layers
from allennlp_parallel_predict.accelerate.shared_layers import layers_to_share
from tests.accelerate.operation_batching_test import LAYERS, load


class TestWhoMay:
    @pytest.fixture(autouse=True)
    def small_layers_are_worth_it(self, monkeypatch):
        monkeypatch.setattr(shared_layers, "_SMALLEST", 0)

    @pytest.fixture
    def predictor(self, archives):
        return load(archives)

    def test_allennlps_own_code(self, predictor):
        assert len(layers_to_share(predictor)) == LAYERS

    def test_not_for_small_layers(self, predictor, monkeypatch):
        monkeypatch.setattr(shared_layers, "_SMALLEST", 100_000)
        assert layers_to_share(predictor) == []
        assert len(layers_to_share(predictor, is_asked_for=True)) == LAYERS

    def test_no_transformer(self, archives):
        predictor = Predictor.from_archive(load_archive(archives("text_classifier")))
        assert layers_to_share(predictor) == layers_to_share(predictor, True) == []

    def test_not_while_somebody_looks_inside(self, predictor):
        hook = predictor._model._seq2vec_encoder.register_forward_hook(lambda *args: None)
        assert layers_to_share(predictor) == []
        hook.remove()
        assert len(layers_to_share(predictor)) == LAYERS

    def test_a_reader_within_a_reader(self, archives):
        predictor = Predictor.from_archive(load_archive(archives("multitask")))
        assert layers_to_share(predictor)
        readers = predictor._dataset_reader.readers.values()
        inner = next(iter(readers)).inner
        inner.__class__ = type("Mine", (TextClassificationJsonReader,), {"__module__": "mine"})
        assert layers_to_share(predictor) == []

    @pytest.mark.parametrize("part", ["predictor", "reader", "tokenizer", "model", "method"])
    def test_not_for_other_code(self, predictor, part):
        reader = predictor._dataset_reader
        if part == "predictor":
            predictor.__class__ = type("Mine", (TextClassifierPredictor,), {"__module__": "mine"})
        elif part == "reader":
            reader.__class__ = type("Mine", (TextClassificationJsonReader,), {"__module__": "mine"})
        elif part == "tokenizer":
            reader._tokenizer = type("Mine", (WhitespaceTokenizer,), {"__module__": "mine"})()
        elif part == "model":
            predictor._model.__class__ = type("Mine", (BasicClassifier,), {"__module__": "mine"})
        else:
            predictor.predict_json = lambda inputs: {}
        assert layers_to_share(predictor) == []
        assert len(layers_to_share(predictor, is_asked_for=True)) == LAYERS
