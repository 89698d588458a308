"""Which worker gets which batch."""

from collections import deque

import pytest

from allennlp_parallel_predict.common.messages import Batch, BatchKind
from allennlp_parallel_predict.executors.base_pool import BaseWorkerPool, WorkerHandle
from allennlp_parallel_predict.executors.retries import Task


class Pool(BaseWorkerPool):
    """Workers that finish what the test says."""

    def __init__(self, size):
        self._workers = [WorkerHandle() for _ in range(size)]
        self.busy, self.sent = set(), []

    @property
    def workers(self):
        return self._workers

    def _may_take(self, worker):
        return worker not in self.busy

    def _send(self, worker, task, message):
        self.sent.append((self._workers.index(worker), task.batch.number))

    def wait(self, timeout, wake):
        raise NotImplementedError

    def replace(self, worker):
        raise NotImplementedError

    def kill(self):
        raise NotImplementedError


def tasks(count):
    return deque(Task(Batch(n, BatchKind.LINES, ["{}"], [n], [n + 1])) for n in range(count))


def test_each_gets_the_next_one_before_anybody_gets_two():
    pool, waiting = Pool(2), tasks(9)
    pool.hand_out(waiting, 0)
    assert pool.sent == [(0, 0), (1, 1), (0, 2), (1, 3)] and len(waiting) == 5


@pytest.mark.parametrize("reserve, given", [(0, 4), (1, 4), (2, 3), (3, 2), (5, 2)])
def test_the_reserve_is_for_workers_that_have_nothing(reserve, given):
    pool, waiting = Pool(2), tasks(5)
    pool.hand_out(waiting, reserve)
    assert len(pool.sent) == given and len(waiting) == 5 - given


def test_nobody_gets_what_he_may_not_take():
    pool, waiting = Pool(2), tasks(4)
    pool.busy = {pool.workers[0]}
    pool.hand_out(waiting, 0)
    assert pool.sent == [(1, 0), (1, 1)]
    worker, task = pool.workers[1], pool.workers[1].tasks[0]
    worker.deaths_in_a_row = 2
    worker.finish_task(task)
    assert (worker.finished, worker.deaths_in_a_row, len(worker.tasks)) == (1, 0, 1)
    pool.hand_out(waiting, 0)
    assert pool.sent[2:] == [(1, 2)]
