import pytest
import torch
from allennlp.nn import util

from allennlp_parallel_predict.accelerate.precision import compute_in
from allennlp_parallel_predict.common.messages import Precision


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(64, 8)

    def forward(self, x):
        product = self.linear(x)
        parts = {"list": [product, "text"], "ids": torch.tensor([1])}
        return {"product": product, "type": product.dtype, "parts": parts}


@pytest.fixture
def layer(monkeypatch):
    monkeypatch.setattr(util, "tiny_value_of_dtype", util.tiny_value_of_dtype)
    with torch.no_grad():
        yield Layer()


def test_bf16_computes_in_autocast_and_returns_float32(layer):
    x = torch.rand(4, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = layer.linear(x).float()
    plain = layer(x)["product"]
    compute_in(layer, Precision.BF16)
    outputs = layer(x)
    assert outputs["type"] is torch.bfloat16
    assert torch.equal(outputs["product"], expected) and not torch.equal(expected, plain)
    assert outputs["product"].numpy().dtype == "float32"
    assert outputs["parts"]["list"][0].dtype is torch.float32
    assert outputs["parts"]["list"][1] == "text" and outputs["parts"]["ids"].dtype is torch.int64


def test_fp32_changes_nothing(layer):
    compute_in(layer, Precision.FP32)
    assert "forward" not in vars(layer)


def test_tf32_is_set_for_the_process(layer):
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.backends.cudnn.allow_tf32 = False
        compute_in(layer, Precision.TF32)
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
        assert "forward" not in vars(layer)
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def test_allennlp_learns_what_is_tiny_in_bfloat16(layer):
    with pytest.raises(TypeError, match="bfloat16"):
        util.tiny_value_of_dtype(torch.bfloat16)
    compute_in(layer, Precision.BF16)
    assert util.tiny_value_of_dtype(torch.bfloat16) == 1e-13
    assert util.tiny_value_of_dtype(torch.half) == 1e-4
    with pytest.raises(TypeError):
        util.tiny_value_of_dtype(torch.int64)
