"""
jsonnet has no wheel for Linux on ARM (aarch64), so setup.cfg asks for gojsonnet there, which is the
same language with the same functions. Without `_jsonnet`, allennlp/common/params.py:13 reads
configurations as plain JSON, and so fails at most of them.
"""

import importlib.util
import sys
from contextlib import contextmanager
from types import ModuleType
from typing import Iterator


@contextmanager
def _stand_in_for_jsonnet(params: ModuleType) -> Iterator[None]:
    missing = "_jsonnet" not in sys.modules and importlib.util.find_spec("_jsonnet") is None
    if missing and importlib.util.find_spec("_gojsonnet") is not None:
        import _gojsonnet

        sys.modules["_jsonnet"] = _gojsonnet
    yield


HOOKS = {"allennlp.common.params": _stand_in_for_jsonnet}
