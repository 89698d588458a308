import pickle
import threading
from typing import Any

import pytest
import torch
from allennlp.predictors import Predictor

from allennlp_parallel_predict.models import sharing


class Tied(torch.nn.Module):
    """Tensors of many kinds, some of which share their memory."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(50, 8)
        self.project = torch.nn.Linear(8, 50)
        self.project.weight = self.embed.weight
        self.lstm = torch.nn.LSTM(8, 4, batch_first=True)
        self.register_buffer("mask", torch.tensor([True, False]))
        self.register_buffer("short", torch.ones(3, dtype=torch.bfloat16))
        self.register_buffer("empty", torch.zeros(0))
        self.register_buffer("transposed", torch.arange(6.0).view(2, 3).t())
        self.register_buffer("part", self.embed.weight.detach()[3:5])
        self.frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.project(self.lstm(self.embed(ids))[0].repeat(1, 1, 2))


def make() -> Any:
    predictor = Predictor.__new__(Predictor)
    predictor._model = Tied().eval()
    predictor.activation = lambda x: x + 1  # as in allennlp.nn.Activation
    return predictor


def unpacked(packed: sharing.PackedPredictor) -> Any:
    memory = sharing.map_file(packed.file.fileno(), packed.size)
    return sharing.unpack(packed.pickled, memory)


def test_what_is_unpacked_equals_what_was_packed():
    predictor = make()
    before = {k: v.clone() for k, v in predictor._model.state_dict().items()}
    ids = torch.arange(12).view(2, 6)
    with torch.no_grad():
        expected = predictor._model(ids)
    packed = sharing.pack(predictor)
    for model in (predictor._model, unpacked(packed)._model):
        assert {k for k in model.state_dict()} == set(before)
        for key, value in model.state_dict().items():
            assert torch.equal(value, before[key]), key
            assert value.dtype == before[key].dtype
        assert model.project.weight is model.embed.weight
        assert not model.frozen.requires_grad and model.embed.weight.requires_grad
        with torch.no_grad():
            assert torch.equal(model(ids), expected)
    assert unpacked(packed).activation(1) == 2


def test_the_pickle_holds_no_tensor():
    predictor = make()
    predictor._model.embed = torch.nn.Embedding(10_000, 8)
    packed = sharing.pack(predictor)
    assert packed.size > 10_000 * 8 * 4
    assert len(packed.pickled) < 20_000


def test_writing_does_not_reach_the_others():
    packed = sharing.pack(make())
    one, other = unpacked(packed)._model, unpacked(packed)._model
    with torch.no_grad():
        one.embed.weight.fill_(7.0)
    assert (one.project.weight == 7).all()
    assert not (other.embed.weight == 7).any()
    assert not (unpacked(packed)._model.embed.weight == 7).any()


def test_unshared_tensors_lie_elsewhere_and_stay_tied():
    packed = sharing.pack(make())
    model = unpacked(packed)._model
    places = {k: v.data_ptr() for k, v in model.state_dict().items() if v.numel()}
    values = {k: v.clone() for k, v in model.state_dict().items()}
    sharing.unshare(model)
    assert all(model.state_dict()[k].data_ptr() != place for k, place in places.items())
    assert all(torch.equal(model.state_dict()[k], value) for k, value in values.items())
    assert model.project.weight is model.embed.weight


def test_models_can_share_one_copy_of_the_memory_as_workers_on_one_gpu_do():
    packed = sharing.pack(make())
    memory = sharing.map_file(packed.file.fileno(), packed.size)
    shared = torch.frombuffer(memory, dtype=torch.uint8).clone()
    ids = torch.arange(12).view(2, 6)
    models = [sharing.unpack(packed.pickled, memory)._model for _ in range(2)]
    before = {k: v.clone() for k, v in models[0].state_dict().items()}
    with torch.no_grad():
        expected = models[0](ids)
    for model in models:
        sharing.adopt(model, memory, shared)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert model.project.weight is model.embed.weight
        with torch.no_grad():
            assert torch.equal(model(ids), expected)
    places = [{k: v.data_ptr() for k, v in model.state_dict().items()} for model in models]
    assert places[0] == places[1]
    assert all(
        shared.data_ptr() <= place < shared.data_ptr() + len(shared)
        for key, place in places[0].items()
        if key != "empty"
    )


def test_what_cannot_be_pickled_raises():
    predictor = make()
    predictor.lock = threading.Lock()
    with pytest.raises((TypeError, pickle.PicklingError)):
        sharing.pack(predictor)
