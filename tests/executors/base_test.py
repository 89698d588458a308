"""The half of a dispatch loop that submits."""

from allennlp_parallel_predict.common.messages import Batch, BatchKind
from allennlp_parallel_predict.executors.base import fill


class Target:
    def __init__(self, room):
        self.room, self.taken = room, []

    def has_room(self):
        return len(self.taken) < self.room

    def submit(self, batch):
        self.taken.append(batch.number)


def batches(count):
    return (Batch(n, BatchKind.LINES, ["{}"], [n], [n + 1]) for n in range(count))


def test_it_stops_where_there_is_no_room_or_no_batch():
    source, target = batches(5), Target(3)
    assert fill(target, lambda: next(source, None))
    assert target.taken == [0, 1, 2]
    target.room = 9
    assert not fill(target, lambda: next(source, None))
    assert target.taken == [0, 1, 2, 3, 4]


def test_it_takes_no_more_than_it_may():
    source, target = batches(5), Target(9)
    assert fill(target, lambda: next(source, None), at_most=2)
    assert target.taken == [0, 1] and next(source).number == 2
