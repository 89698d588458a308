"""
Transformers that do not compute their padding, with the same bits.

All inputs of a batch are made as long as the longest of them. Of a batch of sentences two thirds
may be padding, and a transformer computes it like the rest, though nobody looks at the result: the
attention of the other tokens is masked there, and so is what comes after the transformer, in the
models that are changed here. So its linear layers, which take most of the time, get the rows of the
tokens only. In the others' places are zeros.
"""

import functools
from typing import Any, Callable, List, Optional, Tuple

import torch
from allennlp.models import BasicClassifier, Model
from allennlp.modules.seq2vec_encoders import BagOfEmbeddingsEncoder, BertPooler, ClsPooler
from allennlp.modules.text_field_embedders import BasicTextFieldEmbedder
from allennlp.modules.token_embedders import (
    PretrainedTransformerEmbedder,
    PretrainedTransformerMismatchedEmbedder,
)
from torch import Tensor

from allennlp_parallel_predict.row_layouts import RowLayouts, Trial, bits, spread

_KNOWN = {"albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"}
"""Transformers, by `config.model_type`, whose tokens see each other in the attention alone."""
_POOLERS = (BagOfEmbeddingsEncoder, BertPooler, ClsPooler)
"""Encoders to which padding makes no difference."""


def skip_padding(model: Model, exact: bool = True) -> None:
    """
    Changes the transformers of a model that are known to need no padding.

    # Parameters

    model : `Model`
        The model, which only predicts from now on.
    exact : `bool`, optional (default = `True`)
        See `RowLayouts`.
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


def _skip_in(holder: torch.nn.Module, embedders: Any, exact: bool) -> None:
    """While `holder` is called, which lets nobody see the padding of its embedders."""
    for embedder in embedders:
        if type(embedder) is not PretrainedTransformerEmbedder:
            continue
        transformer: Any = embedder.transformer_model
        if _is_known(transformer):
            rows = _Rows(transformer, exact)
            _wrap(holder, rows.around)
            _wrap(transformer, rows.within)
            for linear in rows.linears:
                _wrap(linear, rows.only)


def _wrap(module: Any, wrapper: Callable[[Any], Any]) -> None:
    module.forward = wrapper(module.forward)


def _is_known(transformer: torch.nn.Module) -> bool:
    config = getattr(transformer, "config", None)
    is_library = type(transformer).__module__.startswith("transformers.")
    is_encoder = not getattr(config, "is_decoder", False)
    return is_library and is_encoder and getattr(config, "model_type", None) in _KNOWN


class _Rows:
    """Which rows of its linear layers a transformer needs for the present batch."""

    def __init__(self, transformer: torch.nn.Module, exact: bool) -> None:
        modules = list(transformer.modules())
        self.linears = [module for module in modules if type(module) is torch.nn.Linear]
        self._modules = modules
        sizes = [linear.weight.numel() for linear in self.linears]
        self._different = list({_shape(linear): linear for linear in self.linears}.values())
        cost = sum(linear.weight.numel() for linear in self._different) / max(1, sum(sizes))
        self._layouts = RowLayouts(exact, cost)
        self._is_hidden = False
        self._rows: Optional[Tensor] = None
        self._shape: Optional[torch.Size] = None

    def around(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def hiding_padding(*args: Any, **kwargs: Any) -> Any:
            self._is_hidden = True
            try:
                return forward(*args, **kwargs)
            finally:
                self._is_hidden = False

        return hiding_padding

    def within(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(forward)
        def with_mask(*args: Any, **kwargs: Any) -> Any:
            mask = kwargs.get("attention_mask")
            if self._is_hidden and mask is not None and not self._is_watched():
                self._rows, self._shape = self._choose(mask), mask.shape
            try:
                return forward(*args, **kwargs)
            finally:
                self._rows = None

        return with_mask

    def only(self, forward: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        @functools.wraps(forward)
        def of_rows(inputs: Tensor) -> Tensor:
            rows = self._rows
            if rows is None or inputs.dim() != 3 or inputs.shape[:2] != self._shape:
                return forward(inputs)
            if not inputs.is_contiguous():
                return forward(inputs)
            flat = inputs.view(-1, inputs.size(2))
            # Of three dimensions too, as torch adds the bias elsewhere if there are two.
            computed = forward(flat.index_select(0, rows).unsqueeze(0)).squeeze(0)
            return spread(computed, rows, len(flat), 0).view(*inputs.shape[:2], -1)

        return of_rows

    def _is_watched(self) -> bool:
        """Whether somebody looks inside, as `Predictor.capture_model_internals` does."""
        return any(module._forward_hooks or module._forward_pre_hooks for module in self._modules)

    def _choose(self, mask: Tensor) -> Optional[Tensor]:
        is_padding = mask == 0
        # An input of padding alone has an attention that some transformers make NaN.
        if mask.is_cuda or mask.dim() != 2 or bool(is_padding.all(1).any()):
            return None
        return self._layouts.choose(is_padding.view(-1), None, self._new_trial)

    def _new_trial(self) -> Trial:
        generator = torch.Generator().manual_seed(0)  # the user's random numbers stay theirs
        rows = [
            torch.randn(1, linear.in_features, generator=generator).to(linear.weight)
            for linear in self._different
        ]

        def trial(size: int) -> Tensor:
            results: List[Tensor] = []
            for linear, row in zip(self._different, rows):
                copies = row.expand(1, size, -1).contiguous()
                results.append(bits(type(linear).forward(linear, copies).squeeze(0)))
            return torch.cat(results, 1)

        return trial


def _shape(linear: torch.nn.Linear) -> Tuple[Any, ...]:
    return (linear.weight.shape, linear.weight.dtype, linear.bias is None)
