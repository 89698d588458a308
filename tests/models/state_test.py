import pytest
import torch
from allennlp.modules.seq2seq_encoders import LstmSeq2SeqEncoder

from allennlp_parallel_predict.models.state import InputCounters, ModelState, stateful_encoder


class Counting(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))
        self.inner = torch.nn.Linear(2, 2)


def test_a_stateful_encoder_is_found_by_name():
    model = torch.nn.ModuleDict({"a": LstmSeq2SeqEncoder(2, 2)})
    assert stateful_encoder(model) is None
    model["b"] = LstmSeq2SeqEncoder(2, 2, stateful=True)
    assert stateful_encoder(model) == "b"


def test_writing_in_place_and_putting_another_tensor_in_place_are_changes():
    model = Counting()
    state = ModelState(model)
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
    state = ModelState(model)
    with torch.no_grad():
        model.inner(torch.ones(3, 2))
    assert state.change() is None


def test_random_numbers_are_a_change():
    state = ModelState(Counting())
    torch.rand(2)
    assert "random" in state.change()
    assert state.change() is None


class TestInputCounters:
    class Predictor:
        """As much of one as counters look at."""

        def __init__(self):
            self.next_id, self.cuda_device, self.name, self.is_done = 1, -1, "a", False

    def counters(self):
        predictor = self.Predictor()
        return predictor, InputCounters(predictor)

    def test_nothing_is_counted(self):
        predictor, counters = self.counters()
        assert not counters.learn([4, 5]) and not counters and counters.change() is None
        counters.go_to(7)
        assert (predictor.next_id, predictor.cuda_device) == (1, -1)

    def test_a_worker_whose_first_batch_is_the_first(self):
        predictor, counters = self.counters()
        predictor.next_id += 2
        assert not counters.learn([0, 1]) and counters and counters.change() is None
        counters.go_to(6)
        assert predictor.next_id == 7
        predictor.next_id += 2
        assert not counters.learn([6, 7]) and counters.change() is None

    def test_a_worker_whose_first_batch_is_another(self):
        predictor, counters = self.counters()
        predictor.next_id += 2
        assert counters.learn([4, 5])  # it has to be predicted once more
        counters.go_to(4)
        assert predictor.next_id == 5
        predictor.next_id += 2
        assert counters.change() is None

    def test_what_is_no_number_any_more(self):
        predictor, counters = self.counters()
        predictor.next_id = "b"
        assert not counters.learn([0]) and "next_id" in counters.change()
        del predictor.next_id
        assert not counters.learn([1]) and "next_id" in counters.change()
        predictor.next_id = 3
        assert not counters.learn([2]) and not counters

    @pytest.mark.parametrize("positions, step", [([0, 1], 3), ([5, 2], 2), ((), 2)])
    def test_what_does_not_count_consecutive_inputs_is_a_change(self, positions, step):
        predictor, counters = self.counters()
        predictor.next_id += step
        assert not counters.learn(positions) and not counters
        assert "next_id" in counters.change() and counters.change() is None
