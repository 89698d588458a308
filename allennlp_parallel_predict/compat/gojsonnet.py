"""
jsonnet has no wheel for Linux on ARM (aarch64), so setup.cfg asks for gojsonnet there, which is the
same language with the same functions. Without `_jsonnet`, allennlp/common/params.py:13 reads
configurations as plain JSON, and so fails at most of them.
"""

import sys
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Iterator


@contextmanager
def _stand_in_for_jsonnet(params: ModuleType) -> Iterator[None]:
    try:
        import _jsonnet  # noqa: F401
    except ImportError:
        with suppress(ImportError):
            import _gojsonnet

            sys.modules["_jsonnet"] = _gojsonnet
    yield


HOOKS = {"allennlp.common.params": _stand_in_for_jsonnet}
