"""Which batch a worker died over, and how that is told."""

import pytest

from allennlp_parallel_predict.common.errors import WorkerDied, WorkerTimeout
from allennlp_parallel_predict.common.messages import Batch, BatchKind
from allennlp_parallel_predict.executors.pool.handle import ProcessHandle
from allennlp_parallel_predict.executors.retries import Task


class Process:
    """A process that has ended."""

    pid = 123

    class channel:
        is_garbled = False

    def poll(self):
        return 7


def handle_of(count, is_ready=True):
    handle = ProcessHandle(2, Process())
    handle.is_ready = is_ready
    for n in range(count):
        handle.tasks.append(Task(Batch(n, BatchKind.LINES, ["{}"], [n], [n + 1])))
    return handle


@pytest.mark.parametrize(
    "count, is_ready, where",
    [
        (2, True, "while it predicted input line 1"),
        (0, True, "between two batches"),
        (2, False, "before it had its model"),
    ],
)
def test_where_it_died(count, is_ready, where):
    handle = handle_of(count, is_ready)
    error, suspect, is_exonerated = handle.death(False, None)
    assert type(error) is WorkerDied
    assert str(error) == f"worker 2 (process 123) ended with exit status 7 {where}"
    assert suspect is (handle.tasks[0] if count and is_ready else None) and not is_exonerated


def test_one_of_several_is_nobodys_fault_yet():
    handle = handle_of(3)
    assert not handle.is_unclear(8)  # the first is always by itself
    handle.finished = 1
    assert handle.is_unclear(8) and not handle.is_unclear(1)
    death = handle.death(True, None)
    assert death.suspect is None and death.is_exonerated
    assert "input line 1 or one of the next" in str(death.error)
    handle.tasks[0].is_alone = True
    assert not handle.is_unclear(8)


def test_a_timeout_blames_the_batch_that_was_over_it():
    handle = handle_of(2)
    handle.kill_at, handle.overdue = 1.0, handle.tasks[0]
    death = handle.death(False, 0.5)
    assert type(death.error) is WorkerTimeout and "batch_timeout of 0.5 s" in str(death.error)
    assert death.suspect is handle.tasks[0]
    handle.finish_task(handle.tasks[0])  # it came while the process was being ended
    assert handle.death(False, 0.5).suspect is None


def test_another_process_takes_its_place():
    handle = handle_of(1)
    handle.finished, handle.kill_at = 3, 1.0
    handle.fill(Process())
    assert (handle.is_ready, handle.finished, handle.kill_at) == (False, 0, None)
    assert len(handle.tasks) == 1 and handle.number == 2
