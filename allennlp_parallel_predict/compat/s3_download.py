"""
boto3 asks the file that it downloads into for its `mode`. That of cached_path 1.1 is a buffer that
was never initialised, which raises "I/O operation on uninitialized object".
"""

from contextlib import contextmanager
from types import ModuleType
from typing import Iterator


@contextmanager
def _give_mode(progress: ModuleType) -> Iterator[None]:
    yield
    if "mode" not in vars(progress.BufferedWriterWithProgress):
        progress.BufferedWriterWithProgress.mode = "wb"


HOOKS = {"cached_path.progress": _give_mode}
