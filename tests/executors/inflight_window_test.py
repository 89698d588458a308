"""How far the workers may run ahead."""

from allennlp_parallel_predict.common.messages import Batch, BatchKind
from allennlp_parallel_predict.executors.inflight_window import InflightWindow


def window_with(count, **limits):
    window = InflightWindow(**{"max_batches": 4, "max_bytes": 100, **limits})
    for number in range(count):
        window.enter(Batch(number, BatchKind.LINES, ["text"], [number], [number + 1]))
    return window


def test_it_closes_when_the_newest_is_far_ahead_of_the_oldest():
    assert window_with(4).is_open()
    window = window_with(5)
    assert not window.is_open()
    assert window.is_open(at_least=5)
    window.leave(3, 1)
    assert not window.is_open()  # the oldest is what counts
    window.leave(0, 1)
    assert window.is_open()


def test_it_closes_when_too_much_waits_for_the_oldest():
    window = window_with(3)
    window.leave(1, 60)
    assert window.is_open()
    window.leave(2, 60)
    assert not window.is_open()
    window.leave(0, 500)  # now nothing waits any more
    assert window.is_open()


def test_what_is_finished_behind_the_oldest_counts_until_it_is_passed():
    window = window_with(4, max_batches=100)
    window.leave(2, 100)
    assert not window.is_open()
    window.leave(0, 0)
    assert not window.is_open()  # 1 is the oldest, and 2 waits for it
    window.leave(1, 0)
    assert window.is_open()


def test_one_batch_may_always_come_in():
    window = window_with(1, max_batches=0)
    assert not window.is_open()
    window.leave(0, 1000)
    assert window.is_open()
