"""What is logged."""

import logging
from contextlib import contextmanager
from typing import Iterator


@contextmanager
def only_warnings(is_wanted: bool) -> Iterator[None]:
    """Leaves out what is logged below a warning, here and in the processes that are forked here."""
    before = logging.root.manager.disable
    if is_wanted:
        logging.disable(max(before, logging.INFO))
    try:
        yield
    finally:
        logging.disable(before)
