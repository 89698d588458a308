"""
AllenNLP's `PretrainedTransformerTokenizer` gives `add_special_tokens` to
`AutoTokenizer.from_pretrained` (pretrained_transformer_tokenizer.py:73 and 117), where it had no
effect. Since transformers 4.44 it is an error: "add_special_tokens conflicts with the method
add_special_tokens in BertTokenizerFast" (raised in tokenization_utils_base.py; seen by others in
flairNLP/flair#3578 and amazon-science/ReFinED#31).
"""

import functools
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Iterator


@contextmanager
def _drop_add_special_tokens(tokenization_auto: ModuleType) -> Iterator[None]:
    yield
    auto_tokenizer = tokenization_auto.AutoTokenizer
    original: Any = auto_tokenizer.from_pretrained.__func__

    def from_pretrained(cls: type, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("add_special_tokens", None)
        return original(cls, *args, **kwargs)

    wrapper: Any = functools.update_wrapper(from_pretrained, original)
    auto_tokenizer.from_pretrained = classmethod(wrapper)


HOOKS = {"transformers.models.auto.tokenization_auto": _drop_add_special_tokens}
