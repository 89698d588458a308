"""Products with packed weights, next to the same ones without."""

import gc

import pytest
import torch
from allennlp.common.plugins import import_plugins
from allennlp.models import load_archive
from allennlp.predictors import Predictor
from torch.nn import Linear, LSTMCell

from allennlp_parallel_predict.accelerate import packed_weights
from allennlp_parallel_predict.accelerate.packed_weights import (
    is_packed,
    pack_weights,
    use_packed_weights,
)
from allennlp_parallel_predict.accelerate.predictor import tune_predictor
from allennlp_parallel_predict.accelerate.row_invariance import is_row_by_row
from tests.contract.parity_test import SENTENCES

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"), reason="torch 1 cannot pack weights"
)

exactly = pytest.mark.skipif(
    not packed_weights._pays(exact=True), reason="other kernels than those that are known"
)


@pytest.fixture(autouse=True)
def small_matrices_are_packed(monkeypatch):
    monkeypatch.setattr(packed_weights, "_SMALLEST", 1)
    monkeypatch.setattr(packed_weights, "_ROWS_PER_PART", 1)


def pack(model, exact=False):
    pack_weights(model, exact)
    use_packed_weights(model, exact)


@pytest.fixture
def layers():
    torch.manual_seed(1)
    return torch.nn.ModuleList([Linear(40, 24), Linear(40, 24, bias=False)])


@pytest.mark.parametrize("shape", [(1, 40), (7, 40), (3, 5, 40), (1, 1, 40), (0, 40)])
def test_a_layer_gives_the_same_but_for_last_digits(layers, shape):
    inputs = torch.randn(shape)
    with torch.no_grad():
        expected = [layer(inputs) for layer in layers]
        pack(layers)
        for layer, outputs in zip(layers, expected):
            assert is_packed(layer)
            torch.testing.assert_close(layer(inputs), outputs)


@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_gives_the_same_but_for_last_digits(bias):
    cell = torch.nn.Sequential(LSTMCell(12, 20, bias=bias))
    inputs, state = torch.randn(6, 12), (torch.randn(6, 20), torch.randn(6, 20))
    with torch.no_grad():
        expected, from_nothing = cell[0](inputs, state), cell[0](inputs)
        pack(cell)
        assert is_packed(cell[0])
        torch.testing.assert_close(cell[0](inputs, state), expected)
        torch.testing.assert_close(cell[0](inputs), from_nothing)


def test_a_hidden_state_of_another_layout_is_left_to_torch_where_bits_count(monkeypatch):
    monkeypatch.setattr(packed_weights, "_pays", lambda exact: True)
    cell = torch.nn.Sequential(LSTMCell(12, 20))
    inputs, state = torch.randn(6, 12), (torch.randn(20, 6).t(), torch.randn(6, 20))
    with torch.no_grad():
        expected = cell[0](inputs, state)
        pack(cell, exact=True)
        monkeypatch.setattr(packed_weights._Packed, "_gives_same_bits", lambda *args: True)
        monkeypatch.setattr(packed_weights._PackedLSTMCell, "_compute", None)
        assert all(map(torch.equal, cell[0](inputs, state), expected))


def test_rows_are_used_as_they_lie_in_memory(layers):
    inputs = torch.randn(40, 9).t()
    with torch.no_grad():
        expected = layers[0](inputs)
        pack(layers)
        torch.testing.assert_close(layers[0](inputs), expected)


def test_weights_that_change_or_need_gradients_are_used_as_they_are(layers):
    pack(layers)
    inputs = torch.randn(3, 40)
    layers[0](inputs).sum().backward()
    assert layers[0].weight.grad is not None
    with torch.no_grad():
        layers[0].weight.zero_()
        layers[1].weight = torch.nn.Parameter(torch.zeros(24, 40))
        assert torch.equal(layers[0](inputs), layers[0].bias.expand(3, -1))
        assert not layers[1](inputs).any()


def test_only_what_can_be_packed_is(layers):
    layers.append(Linear(8, 8).double())
    layers.append(type("Own", (Linear,), {})(8, 8))
    layers.append(torch.nn.LSTM(8, 8))
    pack(layers)
    assert [is_packed(layer) for layer in layers] == [True, True, False, False, False]


def test_what_is_packed_before_a_fork_is_used_after_it_and_goes_with_the_model(layers):
    pack_weights(layers, exact=False)
    assert not any(map(is_packed, layers))
    kept = packed_weights._packed[layers[0]]
    use_packed_weights(layers, exact=False)
    assert layers[0].forward._packed is kept
    gc.collect()
    count = len(packed_weights._packed)
    del layers[1], kept
    gc.collect()
    assert len(packed_weights._packed) == count - 1


@exactly
@pytest.mark.parametrize("width", [24, 192, 193, 200, 256, 300, 384, 385, 770, 1536])
@pytest.mark.parametrize("bias", [True, False])
def test_layers_give_the_same_bits(width, bias):
    layer = torch.nn.Sequential(Linear(width, 96, bias=bias))
    shapes = [(1, 3), (1, 4), (2, 8), (1, 17), (40, 5), (1, 161), (1, 700)]
    inputs = [torch.randn(*shape, width) for shape in shapes]
    inputs += [torch.randn(33, width), torch.randn(width, 34).t()]
    with torch.no_grad():
        expected = [layer(each) for each in inputs]
        pack(layer, exact=True)
        assert all(torch.equal(layer(each), one) for each, one in zip(inputs, expected))
    if width != 193:
        assert any(layer[0].forward._trials.values()), "the packed weights were never used"


@exactly
@pytest.mark.parametrize("bias", [True, False])
def test_cells_give_the_same_bits(bias):
    cell = torch.nn.Sequential(LSTMCell(300, 256, bias=bias))
    rows = [2, 5, 16, 160, 333]
    inputs = [(torch.randn(n, 300), (torch.randn(n, 256), torch.randn(n, 256))) for n in rows]
    with torch.no_grad():
        expected = [cell[0](*each) for each in inputs]
        pack(cell, exact=True)
        for each, one in zip(inputs, expected):
            assert all(map(torch.equal, cell[0](*each), one))
    assert any(cell[0].forward._trials.values()), "the packed weights were never used"


@exactly
def test_what_would_give_other_bits_is_not_used(monkeypatch):
    monkeypatch.setattr(packed_weights, "_ends_of_sums", lambda length: [length])
    layer, inputs = torch.nn.Sequential(Linear(384, 64)), torch.randn(1, 40, 384)
    with torch.no_grad():
        expected = layer(inputs)
        pack(layer, exact=True)
        assert torch.equal(layer(inputs), expected)
        assert list(layer[0].forward._trials.values()) == [False]
        assert not torch.equal(layer[0].forward._compute(inputs), expected)


def test_the_copies_take_a_small_part_of_the_memory(layers, monkeypatch):
    monkeypatch.setattr(packed_weights.machine, "memory", lambda: 8 * 40 * 24 * 4)
    pack(layers)
    assert [is_packed(layer) for layer in layers] == [True, False]


@pytest.mark.parametrize("name", ["transformer_classifier", "seq2seq"])
def test_predictions_agree_and_the_other_accelerators_still_apply(archives, name):
    import_plugins()
    predictor = Predictor.from_archive(load_archive(archives(name)))
    key = "source" if name == "seq2seq" else "sentence"
    inputs = [{key: text} for text in SENTENCES] * 4
    expected = predictor.predict_batch_json([dict(each) for each in inputs])
    tune_predictor(predictor, exact=False)
    assert any(map(is_packed, predictor._model.modules()))
    found = predictor.predict_batch_json(inputs)
    for ours, theirs in zip(found, expected):
        for output in theirs:
            if isinstance(theirs[output], list) and output in ("logits", "probs"):
                torch.testing.assert_close(torch.tensor(ours[output]), torch.tensor(theirs[output]))


def test_packed_layers_count_as_row_by_row(layers):
    pack(layers)
    assert is_row_by_row(layers)
    layers[0].forward = lambda inputs: inputs
    assert not is_row_by_row(layers)
