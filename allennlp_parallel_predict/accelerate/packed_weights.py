"""
Products with weights that are put into oneDNN's order once, where last digits may differ.

torch gives a product of float32 matrices to MKL, which orders the weights for its kernels each
time, and takes AVX2 on AMD's CPUs that have AVX-512. oneDNN, which comes with torch too, can keep
the ordered weights, and takes what the CPU has: 2.0 to 2.7 times as fast on such a CPU, from 8 rows
on. It sums in another order, so this is for `"exact": false` and `bucket`.
"""

from typing import Any, Callable, Optional, Tuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Linear, LSTMCell, Module

_SMALLEST = 1 << 17
"""Numbers in a matrix. With fewer, a call of oneDNN costs more than the product."""
_packed: "WeakKeyDictionary[Module, Tensor]" = WeakKeyDictionary()
"""What was packed before a fork, which the workers share."""


def pack_weights(model: Module) -> None:
    """
    Packs the weights of a model. A process that is going to be forked does so for its children; in
    each of them `use_packed_weights` finds what is there.
    """
    for module in model.modules():
        if module not in _packed and _is_suitable(module):
            _packed[module] = torch.ops.mkldnn._reorder_linear_weight(_weight(module), None)


def use_packed_weights(model: Module) -> None:
    """
    Has the linear layers and LSTM cells of a model compute with packed weights, on a CPU and as
    long as nobody writes to the weights or wants gradients.
    """
    pack_weights(model)
    for module in model.modules():
        if module in _packed and "forward" not in vars(module):
            kind = _PackedLinear if isinstance(module, Linear) else _PackedLSTMCell
            vars(module)["forward"] = kind(module, _packed[module])


def is_packed(module: Module) -> bool:
    """Whether a module computes with packed weights, and is otherwise what its class says."""
    return isinstance(vars(module).get("forward"), _Packed)


def _is_suitable(module: Any) -> bool:
    if type(module) not in (Linear, LSTMCell) or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False  # torch 1
    weights = [weight for name, weight in module.named_parameters() if name.startswith("weight")]
    is_plain = all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)
    return is_plain and sum(weight.numel() for weight in weights) >= _SMALLEST


def _weight(module: Any) -> Tensor:
    if isinstance(module, Linear):
        return module.weight.detach()
    return torch.cat([module.weight_ih, module.weight_hh], 1).detach()


class _Packed:
    """The `forward` of a module, with its weights packed."""

    def __init__(self, module: Any, packed: Tensor) -> None:
        self._plain: Callable[..., Any] = module.forward
        self._module = module
        self._packed = packed
        self._versions = self._versions_now()

    def _versions_now(self) -> Tuple[Tuple[int, int], ...]:
        parameters = self._module._parameters.values()
        return tuple((id(p), p._version) for p in parameters if p is not None)

    def _can_compute(self, inputs: Tensor) -> bool:
        is_float = inputs.dtype == torch.float32 and inputs.device.type == "cpu"
        is_wanted = is_float and inputs.numel() > 0 and not torch.is_grad_enabled()
        return is_wanted and self._versions_now() == self._versions

    def _product(self, inputs: Tensor, bias: Optional[Tensor]) -> Any:
        return torch.ops.mkldnn._linear_pointwise(inputs, self._packed, bias, "none", [], "")


class _PackedLinear(_Packed):
    def __call__(self, input: Tensor) -> Any:
        if not self._can_compute(input):
            return self._plain(input)
        return self._product(input, self._module.bias)


class _PackedLSTMCell(_Packed):
    """Both products of the cell are one."""

    def __init__(self, module: Any, packed: Tensor) -> None:
        super().__init__(module, packed)
        self._bias = (module.bias_ih + module.bias_hh).detach() if module.bias else None

    def __call__(self, input: Tensor, hx: Optional[Tuple[Tensor, Tensor]] = None) -> Any:
        if hx is None or input.dim() != 2 or not self._can_compute(input):
            return self._plain(input, hx)
        hidden, cell = hx
        gates = self._product(torch.cat([input, hidden], 1), self._bias)
        enters, stays, new, leaves = gates.chunk(4, 1)
        cell = torch.addcmul(enters.sigmoid() * new.tanh(), stays.sigmoid(), cell)
        return leaves.sigmoid() * cell.tanh(), cell
