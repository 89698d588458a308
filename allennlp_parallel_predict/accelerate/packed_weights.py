"""
Products with weights that are put into oneDNN's order once, with the same bits.

torch gives a product of float32 matrices to MKL, which orders the weights for its kernels each
time, and takes AVX2 on AMD's CPUs that have AVX-512. oneDNN, which comes with torch too, can keep
the ordered weights, and takes what the CPU has: twice as fast on such a CPU, from 32 rows on.

A number of the result is a sum of products. oneDNN adds them up one after the other. So does MKL's
kernel for AVX2 as long as they are no more than 192; longer sums it makes of parts, which it adds
up in turn. When oneDNN is given the same parts, it computes the same bits. Whether it does is tried
with random numbers for each shape, since kernels choose the order by shape alone. Where it does
not, torch computes as ever: for fewer than 4 rows, or where MKL has other kernels.

The ordered weights are a second copy of the matrices. A forked worker shares it with the others; a
process that would have one of its own packs only where last digits may differ.
"""

from typing import Any, Callable, Dict, Hashable, List, Optional, Tuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Linear, LSTMCell, Module

from allennlp_parallel_predict.common import machine

_SMALLEST = 1 << 17
"""Numbers in a module's weights. With fewer, a call of oneDNN costs more than the product."""
_LONGEST_SUM = 192
"""What MKL's kernel for AVX2 adds up one after the other."""
_ROWS_PER_PART = 8
"""With fewer rows, the calls of oneDNN cost more than they bring."""
_PART_OF_MEMORY = 8
"""The copies take at most one part in so many."""


class _Weight:
    """A packed weight: in one part, or in the parts that MKL adds up."""

    def __init__(self, weight: Tensor, exact: bool) -> None:
        ends = _ends_of_sums(weight.size(1)) if exact else [weight.size(1)]
        reorder = torch.ops.mkldnn._reorder_linear_weight
        self.parts = [
            (start, end, reorder(weight[:, start:end].contiguous(), None))
            for start, end in zip([0, *ends], ends)
        ]

    def product(self, inputs: Tensor, bias: Optional[Tensor]) -> Any:
        linear = torch.ops.mkldnn._linear_pointwise
        result: Any = None
        for start, end, part in self.parts:
            columns = inputs[..., start:end]
            if start == 0:
                result = linear(columns, part, bias, "none", [], "")
            else:
                result = linear.binary(columns, result, part, None, "add")
        return result


def _ends_of_sums(length: int) -> List[int]:
    if length <= _LONGEST_SUM:
        return [length]
    if length <= 2 * _LONGEST_SUM:
        return [length // 2, length]
    return [*range(_LONGEST_SUM, length, _LONGEST_SUM), length]


_packed: "WeakKeyDictionary[Module, List[_Weight]]" = WeakKeyDictionary()
"""What was packed before a fork, which the workers share."""


def pack_weights(model: Module, exact: bool) -> None:
    """
    Packs the weights of a model. A process that is going to be forked does so for its children; in
    each of them `use_packed_weights` finds what is there. If `exact`, the products have to stay
    the same to the bit.
    """
    if not _pays(exact):
        return
    room = machine.memory() // _PART_OF_MEMORY
    for module in model.modules():
        if module not in _packed and _is_suitable(module):
            size = sum(weight.numel() * weight.element_size() for weight in _weights(module))
            if size <= room:
                room -= size
                _packed[module] = [_Weight(weight.detach(), exact) for weight in _weights(module)]


def use_packed_weights(model: Module, exact: bool) -> None:
    """
    Has the linear layers and LSTM cells of a model compute with the weights that `pack_weights` has
    packed, on a CPU and as long as nobody writes to the weights or wants gradients.
    """
    trials: _Trials = {}
    for module in model.modules():
        if module in _packed and "forward" not in vars(module):
            kind = _PackedLinear if isinstance(module, Linear) else _PackedLSTMCell
            vars(module)["forward"] = kind(module, _packed[module], trials if exact else None)


def is_packed(module: Module) -> bool:
    """Whether a module computes with packed weights, and is otherwise what its class says."""
    return isinstance(vars(module).get("forward"), _Packed)


def _pays(exact: bool) -> bool:
    if not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_reorder_linear_weight"):
        return False  # torch 1
    # With AVX2, oneDNN is 1.17 times as fast as MKL in one part, and no faster in several.
    backends: Any = torch.backends
    return not exact or backends.cpu.get_cpu_capability() == "AVX512"


def _is_suitable(module: Any) -> bool:
    if type(module) not in (Linear, LSTMCell):
        return False
    weights = _weights(module)
    is_plain = all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)
    return is_plain and sum(weight.numel() for weight in weights) >= _SMALLEST


def _weights(module: Any) -> List[Tensor]:
    return [weight for name, weight in module.named_parameters() if name.startswith("weight")]


_Trials = Dict[Hashable, bool]
"""Whether the bits are the same, by shape."""


class _Packed:
    """The `forward` of a module, with its weights packed."""

    def __init__(self, module: Any, weights: List[_Weight], trials: Optional[_Trials]) -> None:
        self._plain: Callable[..., Any] = module.forward
        self._module = module
        self._packed = weights
        self._trials = trials
        shapes = tuple(weight.shape for weight in _weights(module))
        self._kind = type(self), shapes, module.bias is None
        self._fewest_rows = _ROWS_PER_PART * max(len(weight.parts) for weight in weights)
        self._versions = self._versions_now()

    def _versions_now(self) -> Tuple[Tuple[int, int], ...]:
        parameters = self._module._parameters.values()
        return tuple((id(p), p._version) for p in parameters if p is not None)

    def _can_compute(self, inputs: Tensor) -> bool:
        rows = inputs.numel() // max(1, inputs.size(-1))
        if rows < self._fewest_rows or torch.is_grad_enabled():
            return False
        is_plain = inputs.dtype == torch.float32 and inputs.device.type == "cpu"
        if not is_plain or self._versions_now() != self._versions:
            return False
        return self._trials is None or self._gives_same_bits(inputs, rows)

    def _gives_same_bits(self, inputs: Tensor, rows: int) -> bool:
        assert self._trials is not None
        if not inputs.is_contiguous():
            return False
        # The kernels compute some rows at once, and those that remain in another way. 16 is a
        # multiple of all such numbers.
        key = (self._kind, rows.bit_length(), rows % 16, inputs.dim())
        if key not in self._trials:
            samples = self._samples(inputs, torch.Generator().manual_seed(0))
            expected, found = self._plain(*samples), self._compute(*samples)
            self._trials[key] = all(map(torch.equal, _as_tuple(expected), _as_tuple(found)))
        return self._trials[key]

    def _samples(self, inputs: Tensor, generator: torch.Generator) -> Tuple[Any, ...]:
        raise NotImplementedError

    def _compute(self, *inputs: Any) -> Any:
        raise NotImplementedError


def _as_tuple(outputs: Any) -> Tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)


class _PackedLinear(_Packed):
    def __call__(self, input: Tensor) -> Any:
        return self._compute(input) if self._can_compute(input) else self._plain(input)

    def _compute(self, input: Tensor) -> Any:
        return self._packed[0].product(input, self._module.bias)

    def _samples(self, inputs: Tensor, generator: torch.Generator) -> Tuple[Any, ...]:
        return (torch.randn(inputs.shape, generator=generator),)


class _PackedLSTMCell(_Packed):
    def __call__(self, input: Tensor, hx: Optional[Tuple[Tensor, Tensor]] = None) -> Any:
        if hx is None or input.dim() != 2 or not self._can_compute(input):
            return self._plain(input, hx)
        if self._trials is not None and not hx[0].is_contiguous():
            return self._plain(input, hx)
        return self._compute(input, hx)

    def _compute(self, input: Tensor, hx: Tuple[Tensor, Tensor]) -> Tuple[Tensor, Tensor]:
        """In the order of torch's own, which adds and multiplies in place."""
        hidden, cell = hx
        for_input, for_hidden = self._packed
        gates = for_hidden.product(hidden, self._module.bias_hh)
        gates.add_(for_input.product(input, self._module.bias_ih))
        enters, stays, new, leaves = gates.chunk(4, 1)
        kept = stays.sigmoid_() * cell
        cell = kept.add_(enters.sigmoid_() * new.tanh_())
        return leaves.sigmoid_() * cell.tanh(), cell

    def _samples(self, inputs: Tensor, generator: torch.Generator) -> Tuple[Any, ...]:
        state = (len(inputs), self._module.hidden_size)
        sample = torch.randn(inputs.shape, generator=generator)
        return sample, tuple(torch.randn(state, generator=generator) for _ in range(2))
