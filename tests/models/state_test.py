import pytest
import torch
from allennlp.predictors import Predictor
from allennlp_models.rc.predictors import TransformerQAPredictor
from allennlp.modules.seq2seq_encoders import LstmSeq2SeqEncoder

from allennlp_parallel_predict.models.state import InputCounters, ModelState, stateful_encoder


class Counting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.inner = torch.nn.Linear(2, 2)


def predictor_with(model):
    predictor = Predictor.__new__(Predictor)
    predictor._model = model
    return predictor


def test_a_stateful_encoder_is_found_by_name():
    model = torch.nn.ModuleDict({"a": LstmSeq2SeqEncoder(2, 2)})
    assert stateful_encoder(model) is None
    model["b"] = LstmSeq2SeqEncoder(2, 2, stateful=True)
    assert stateful_encoder(model) == "b"


def test_writing_in_place_and_putting_another_tensor_in_place_are_changes():
    model = Counting()
    state = ModelState(predictor_with(model))
    assert state.change() is None
    model.seen += 1
    assert "seen" in state.change()
    assert state.change() is None
    model.seen = model.seen + 1
    assert "seen" in state.change()
    with torch.no_grad():
        model.inner.weight.mul_(2)
    assert "inner.weight" in state.change()


def test_predicting_is_no_change():
    model = Counting().eval()
    state = ModelState(predictor_with(model))
    with torch.no_grad():
        model.inner(torch.ones(3, 2))
    assert state.change() is None


def test_random_numbers_are_a_change():
    state = ModelState(predictor_with(Counting()))
    torch.rand(2)
    assert "random" in state.change()
    assert state.change() is None


class TestInputCounters:
    def counters(self, owner=TransformerQAPredictor):
        predictor = owner.__new__(owner)
        predictor._next_qid, predictor.cuda_device = 1, -1
        return predictor, InputCounters(predictor)

    def test_a_predictor_that_is_not_known_counts_nothing(self):
        predictor, counters = self.counters(Predictor)
        assert not counters and counters.change() is None
        counters.go_to([7])
        assert (predictor._next_qid, predictor.cuda_device) == (1, -1)

    def test_a_known_one_counts_from_the_first_input_of_a_batch(self):
        class Derived(TransformerQAPredictor):
            pass

        for owner in (TransformerQAPredictor, Derived):
            predictor, counters = self.counters(owner)
            assert counters
            for first in (6, 2):
                counters.go_to(range(first, first + 2))
                assert (predictor._next_qid, predictor.cuda_device) == (first + 1, -1)
                predictor._next_qid += 2
                assert counters.change() is None

    @pytest.mark.parametrize("positions", [[5, 2], ()])
    def test_inputs_without_a_place_are_counted_as_in_one_process_only(self, positions):
        predictor, counters = self.counters()
        counters.go_to(positions)
        assert predictor._next_qid == 1 and counters.change() is None
        predictor._next_qid += 2
        assert "next_qid" in counters.change() and counters.change() is None
