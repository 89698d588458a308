"""Stages go to the recorder of their thread, and to nobody by default."""

import threading
from contextlib import contextmanager

import pytest

from allennlp_parallel_predict.common.recorder import (
    Recorder,
    current,
    in_stage,
    recording,
    stage,
)


class Names(Recorder):
    def __init__(self):
        self.names = []

    @contextmanager
    def stage(self, name):
        self.names.append(name)
        try:
            yield
        finally:
            self.names.append(f"end of {name}")


@in_stage("decorated")
def divide(a, b):
    """a / b"""
    with stage("inner"):
        return a / b


def test_stages_are_recorded_in_their_order_and_end_with_an_error():
    names = Names()
    with recording(names):
        assert divide(6, 2) == 3 and divide.__doc__ == "a / b"
        with pytest.raises(ZeroDivisionError):
            divide(1, 0)
    assert names.names == ["decorated", "inner", "end of inner", "end of decorated"] * 2


def test_by_default_and_in_other_threads_nobody_listens():
    names = Names()
    with recording(names):
        thread = threading.Thread(target=divide, args=(1, 1))
        thread.start()
        thread.join()
    assert divide(1, 1) == 1 and names.names == []
    assert type(current()) is Recorder and current().detail is None
    with current().predicting():
        current().count_sent(1)
