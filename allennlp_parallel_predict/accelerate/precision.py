"""
Fewer bits per number: the setting `precision`.

`tf32` lets a GPU round the factors of float32 products. `fp16` and `bf16` are torch's autocast, in
which AllenNLP trains (`use_amp`), around the model's `forward`. What that returns becomes float32
again: AllenNLP makes NumPy arrays of it (models/model.py:232), and NumPy has no bfloat16.
"""

import functools
from typing import Any, Callable

import torch
from allennlp.nn import util

from allennlp_parallel_predict.common.messages import Precision

_tiny_value_of_dtype = util.tiny_value_of_dtype
_DTYPES = {Precision.FP16: torch.float16, Precision.BF16: torch.bfloat16}


def compute_in(model: Any, precision: Precision) -> None:
    """Has a model, which is on its device, compute in a precision. TF32 is of the whole process."""
    if precision == Precision.TF32:
        # For the products, in every version of torch; cuDNN's RNNs and convolutions use it anyway,
        # unless somebody has forbidden it.
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    elif precision in _DTYPES:
        util.tiny_value_of_dtype = _tiny_value
        model.forward = _in_autocast(model, model.forward, _DTYPES[precision])


def _tiny_value(dtype: torch.dtype) -> float:
    """AllenNLP's function does not know bfloat16, which has the range of float32."""
    is_new = dtype == torch.bfloat16
    return float(_tiny_value_of_dtype(torch.float32 if is_new else dtype))


def _in_autocast(
    model: torch.nn.Module, forward: Callable[..., Any], dtype: torch.dtype
) -> Callable[..., Any]:
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")

    @functools.wraps(forward)
    def in_autocast(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, dtype=dtype):
            outputs = forward(*args, **kwargs)
        return _to_float32(outputs)

    return in_autocast


def _to_float32(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.dtype in _DTYPES.values() else value
    if isinstance(value, dict):
        return {key: _to_float32(item) for key, item in value.items()}
    return [_to_float32(item) for item in value] if type(value) is list else value
