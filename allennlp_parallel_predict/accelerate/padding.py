"""
Transformers that do not compute their padding, with the same bits.

All inputs of a batch are made as long as the longest of them. Of a batch of sentences two thirds
may be padding, and a transformer computes it like the rest, though nobody looks at the result: the
attention of the other tokens is masked there, and so is what comes after the transformer, in the
models that are changed here. So its linear layers, which take most of the time, get the rows of the
tokens only. In the others' places are zeros.
"""

import functools
import threading
from typing import Any, Callable, Hashable, Iterable, List, Optional

import torch
from allennlp.models import BasicClassifier, Model
from allennlp.modules.seq2vec_encoders import BagOfEmbeddingsEncoder, BertPooler, ClsPooler
from allennlp.modules.text_field_embedders import BasicTextFieldEmbedder
from allennlp.modules.token_embedders import (
    PretrainedTransformerEmbedder,
    PretrainedTransformerMismatchedEmbedder,
)
from torch import Tensor

from allennlp_parallel_predict.accelerate.row_invariance import (
    Probe,
    RowInvariance,
    fingerprints,
    is_row_by_row,
    is_watched,
    own_random_numbers,
    scatter_rows,
)

_KNOWN = {"albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"}
"""Transformers, by `config.model_type`, whose tokens see each other in the attention alone."""
_POOLERS = (BagOfEmbeddingsEncoder, BertPooler, ClsPooler)
"""Encoders to which padding makes no difference."""
_ENOUGH_NUMBERS = 256
"""In all samples of a trial of a layer together."""


def skip_padding(model: Model, exact: bool = True) -> None:
    """
    Changes the transformers of a model, which only predicts from now on, that are known to need no
    padding. For `exact` see `RowInvariance`.
    """
    for module in model.modules():
        if type(module) is PretrainedTransformerMismatchedEmbedder:
            # It takes the word pieces of words, and padding belongs to none.
            _skip_in(module, [module._matched_embedder], exact)
    if _is_pooling_classifier(model):
        embedders: Any = model._text_field_embedder
        _skip_in(model, embedders.children(), exact)


def _is_pooling_classifier(model: Model) -> bool:
    if type(model) is not BasicClassifier or model._seq2seq_encoder is not None:
        return False
    is_basic = type(model._text_field_embedder) is BasicTextFieldEmbedder
    return is_basic and type(model._seq2vec_encoder) in _POOLERS


def _skip_in(holder: torch.nn.Module, embedders: Iterable[Any], exact: bool) -> None:
    """Whenever `holder` is called, as nobody outside of it sees the padding of its embedders."""
    for embedder in embedders:
        if type(embedder) is not PretrainedTransformerEmbedder:
            continue
        transformer: Any = embedder.transformer_model
        if is_known(transformer):
            rows = _Rows(holder, transformer, exact)
            _wrap(holder, rows.around)
            _wrap(transformer, rows.within)
            transformer.skips_padding = True  # a profile must not say that padding costs time
            for linear in rows.linears:
                _wrap(linear, rows.only)


def _wrap(module: Any, wrapper: Callable[[Any], Any]) -> None:
    module.forward = wrapper(module.forward)


def is_known(transformer: torch.nn.Module) -> bool:
    """Whether it is a transformer whose linear layers compute each token by itself."""
    config = getattr(transformer, "config", None)
    is_encoder = not getattr(config, "is_decoder", False)
    is_known = is_encoder and getattr(config, "model_type", None) in _KNOWN
    return is_known and is_row_by_row(transformer, "transformers")


class _Batch(threading.local):
    """What is being computed in this thread."""

    is_hidden = False
    rows: Optional[Tensor] = None
    shape: Optional[torch.Size] = None


class _Rows:
    """Which rows of its linear layers a transformer needs."""

    def __init__(self, holder: torch.nn.Module, transformer: torch.nn.Module, exact: bool) -> None:
        parts = list(transformer.modules())
        self.linears = [part for part in parts if type(part) is torch.nn.Linear]
        self._modules = list(holder.modules())
        self._different = different_layers(self.linears)
        trial = sum(_samples(linear) * linear.weight.numel() for linear in self._different)
        whole = sum(linear.weight.numel() for linear in self.linears)
        self._trial_cost = trial / max(1, whole)
        self._layouts = RowInvariance(exact)
        self._batch = _Batch()

    def around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def hiding_padding(*args: Any, **kwargs: Any) -> Any:
            self._batch.is_hidden = not (torch.is_grad_enabled() or is_watched(*self._modules))
            try:
                return forward(*args, **kwargs)
            finally:
                self._batch.is_hidden = False

        return hiding_padding

    def within(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def with_mask(*args: Any, **kwargs: Any) -> Any:
            mask = kwargs.get("attention_mask")
            if self._batch.is_hidden and mask is not None:
                self._batch.rows, self._batch.shape = self._choose(mask), mask.shape
            try:
                return forward(*args, **kwargs)
            finally:
                self._batch.rows = None

        return with_mask

    def only(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        @functools.wraps(forward)
        def of_rows(inputs: Tensor) -> Tensor:
            rows = self._batch.rows
            if rows is None or inputs.dim() != 3 or inputs.shape[:2] != self._batch.shape:
                return forward(inputs)
            if not inputs.is_contiguous():
                return forward(inputs)
            flat = inputs.view(-1, inputs.size(2))
            # Of three dimensions too, as torch adds the bias elsewhere if there are two.
            computed = forward(flat.index_select(0, rows).unsqueeze(0)).squeeze(0)
            return scatter_rows(computed, rows, len(flat), 0).view(*inputs.shape[:2], -1)

        return of_rows

    def _choose(self, mask: Tensor) -> Optional[Tensor]:
        if mask.device.type != "cpu" or mask.dim() != 2:
            return None
        # Padding is at the end, and no input is padding alone: some transformers make that NaN.
        if not (bool(mask[:, 0].all()) and bool((mask[:, 1:] <= mask[:, :-1]).all())):
            return None
        is_padding = (mask == 0).view(-1)
        new_trial = functools.partial(layer_trial, self._different)
        return self._layouts.choose(is_padding, "linear", new_trial, self._trial_cost)


def layer_trial(layers: List[torch.nn.Linear]) -> Probe:
    """A trial of layers of all shapes that a model has."""
    generator = own_random_numbers()
    samples = [
        (layer, torch.randn(layer.weight.size(1), generator=generator).to(layer.weight))
        for layer in layers
        for _ in range(_samples(layer))
    ]

    def trial(size: int) -> Tensor:
        found = torch.zeros(size, dtype=torch.long)
        for layer, row in samples:
            copies = row.expand(1, size, -1).contiguous()
            found = 31 * found + fingerprints(type(layer).forward(layer, copies).squeeze(0))
        return found

    return trial


def different_layers(layers: List[torch.nn.Linear]) -> List[torch.nn.Linear]:
    """One layer of each shape."""
    return list({_shape(layer): layer for layer in layers}.values())


def _samples(linear: torch.nn.Linear) -> int:
    return -(-_ENOUGH_NUMBERS // len(linear.weight))


def _shape(linear: torch.nn.Linear) -> Hashable:
    return (linear.weight.shape, linear.weight.dtype, linear.bias is None)
