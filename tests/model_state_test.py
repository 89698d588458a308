import torch
from allennlp.modules.seq2seq_encoders import LstmSeq2SeqEncoder

from allennlp_parallel_predict.model_state import ModelState, stateful_encoder


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
