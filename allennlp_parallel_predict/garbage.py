"""
Spares Python's garbage collector what was imported: 300,000 objects that will stay.

It would look at all of them several times while an archive is loaded, now and then while workers
wait for their next batches, and again at the end of the process: the best part of a second of a run
of ten lines.
"""

import atexit
import gc
from contextlib import contextmanager
from typing import Iterator


@contextmanager
def imports_spared() -> Iterator[None]:
    """
    Around a run. What the run itself leaves behind is collected at its end, so that whatever is to
    happen then does (a predictor's `__del__`). If it ends well, so does the process, without
    another look.
    """
    gc.freeze()
    try:
        yield
        gc.collect()
        atexit.unregister(gc.freeze)
        atexit.register(gc.freeze)
    finally:
        gc.unfreeze()  # the process may have other things to do
