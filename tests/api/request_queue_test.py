"""Which requests a worker gets next."""

import pytest

from allennlp_parallel_predict.api.request_queue import DynamicBatcher, QueueSettings, Request
from allennlp_parallel_predict.common.errors import SettingsError, WorkerDied
from allennlp_parallel_predict.common.messages import BatchKind, BatchResult, Failure
from allennlp_parallel_predict.common.remote_errors import RemoteError
from allennlp_parallel_predict.common.serialization import dumps


def request(value=0, age=0.0, **how):
    made = Request(BatchKind.JSON, [dumps(value)], **how)
    made.since -= age
    return made


def batcher_with(*requests, max_batch_size=4, max_queue_delay=10.0):
    batcher = DynamicBatcher(QueueSettings(max_batch_size, max_queue_delay))
    for one in requests:
        batcher.add(one)
    return batcher


class TestWhatIsMerged:
    def test_it_waits_for_a_full_batch_while_a_worker_is_idle(self):
        some = [request(merge=True) for _ in range(4)]
        batcher = batcher_with(*some[:3])
        assert batcher.take(has_idle=True) == []
        assert 9.0 < batcher.patience <= 10.0
        batcher.add(some[3])
        assert batcher.take(has_idle=True) == some
        assert len(batcher) == 0 and batcher.take(has_idle=True) == []

    def test_it_does_not_wait_longer_than_it_may(self):
        old, young = request(merge=True, age=11.0), request(merge=True)
        assert batcher_with(old, young).take(has_idle=True) == [old, young]

    def test_nor_if_nothing_more_will_come(self):
        one = request(merge=True)
        assert batcher_with(one).take(has_idle=True, in_hurry=True) == [one]

    def test_there_is_nothing_for_busy_workers(self):
        batcher = batcher_with(*(request(merge=True) for _ in range(9)))
        assert batcher.take(has_idle=False) == [] and batcher.patience is None
        assert len(batcher.take(has_idle=True)) == 4

    def test_who_has_cancelled_costs_nothing(self):
        gone, there = request(merge=True, age=20.0), request(merge=True)
        batcher = batcher_with(gone, there)
        gone.future.cancel()
        assert batcher.take(has_idle=True) == []
        assert batcher.take(has_idle=True, in_hurry=True) == [there]


class TestTheOthers:
    def test_they_go_alone_and_ahead_if_they_want_to(self):
        plain, ahead = request(), request(ahead=True)
        batcher = batcher_with(plain, ahead)
        assert batcher.take(has_idle=False) == []
        assert batcher.take(has_idle=True) == [plain]
        assert batcher.take(has_idle=False) == [ahead]

    def test_a_single_call_that_came_before_is_not_overtaken(self):
        single, stream = request(merge=True, age=20.0), request(ahead=True)
        batcher = batcher_with(stream, single)
        assert batcher.take(has_idle=False) == []
        assert batcher.take(has_idle=True) == [single]
        assert batcher.take(has_idle=False) == [stream]

    def test_who_is_put_back_is_first(self):
        first, second, third = request(), request(), request()
        batcher = batcher_with(third)
        batcher.put_back([first, second])
        assert batcher.take_all() == [first, second, third]


def test_each_gets_its_own_part_of_the_result():
    one, other = request(), request()
    two = Request(BatchKind.JSON, [b"", b""])
    one.offset, two.offset, other.offset = 0, 1, 3
    failure = Failure(2, RemoteError.of(WorkerDied("it died")))
    result = BatchResult(0, [dumps("a"), dumps("b"), None, dumps("d")], failures=[failure])
    for waiting in (one, two, other):
        waiting.finish(result)
    assert (one.future.result(), other.future.result()) == (["a"], ["d"])
    good, bad = two.future.result()
    assert good == "b" and isinstance(bad, WorkerDied)


@pytest.mark.parametrize(
    "wrong", [{"max_batch_size": 0}, {"max_queue_delay": -0.1}, {"max_waiting": 0}]
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(SettingsError, match=next(iter(wrong))):
        QueueSettings(**wrong)
