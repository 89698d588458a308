"""What the parent knows of an actor."""

import pytest

from allennlp_parallel_predict.common.errors import WorkerDied, WorkerTimeout
from allennlp_parallel_predict.common.messages import Batch, BatchKind, BatchProfile, BatchResult
from allennlp_parallel_predict.common.stopwatch import Span
from allennlp_parallel_predict.executors.ray.actor import ActorIdentity, clock
from allennlp_parallel_predict.executors.ray.handle import ActorHandle, in_our_time
from allennlp_parallel_predict.executors.retries import Task


def handle_of(count, shift=0.0):
    handle = ActorHandle(None, 0)
    handle.identity = ActorIdentity("node", "host", 7, clock() + shift)
    for n in range(count):
        handle.tasks.append(Task(Batch(n, BatchKind.LINES, ["{}"], [n], [n + 1])))
    return handle


def test_it_is_dead_when_nothing_of_it_is_on_its_way_any_more():
    handle = handle_of(2)
    for task, is_dead in zip(handle.tasks, (False, True)):
        assert not handle.is_dead()
        handle.errors[task] = RuntimeError("gone")
        assert handle.is_dead() == is_dead


def test_how_it_died():
    cause = RuntimeError("The actor died.\nIts node left. There are some potential root causes: x")
    error = handle_of(1).describe_death(cause, None)
    assert type(error) is WorkerDied
    assert str(error) == (
        "the worker in process 7 on host ended while it predicted input line 1 (Its node left.)"
    )
    assert "before it had its model" in str(ActorHandle(None, 0).describe_death(cause, None))
    handle = handle_of(1)
    handle.timed_out = True
    assert type(handle.describe_death(cause, 2.0)) is WorkerTimeout


def test_times_of_another_machine_become_ours():
    profile = BatchProfile(1, 10.0, 11.0, 12.0, {}, [], 0, 0, 1, 0.0, [Span("a", 11.0, 12.0)])
    handle = handle_of(1, shift=100.0)
    ours = in_our_time(BatchResult(0, profile=profile), handle).profile
    assert (ours.since, ours.started, ours.ended) == pytest.approx((110, 111, 112), abs=0.5)
    assert ours.spans[0].end - ours.spans[0].start == pytest.approx(1.0)
    unprofiled = BatchResult(0)
    assert in_our_time(unprofiled, handle) is unprofiled
