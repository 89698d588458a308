"""
The actors of a pool, with a stand-in for Ray whose answers come when the test says so: in which
order they come on a real cluster is not ours to decide.
"""

from collections import deque
from concurrent.futures import Future

import pytest

from allennlp_parallel_predict.common.errors import SettingsError, WorkerTimeout
from allennlp_parallel_predict.common.messages import Batch, BatchKind
from allennlp_parallel_predict.common.remote_errors import RemoteError
from allennlp_parallel_predict.executors.ray import actor_pool
from allennlp_parallel_predict.executors.ray.actor import ActorIdentity, clock
from allennlp_parallel_predict.executors.ray.actor_pool import ActorPool
from allennlp_parallel_predict.executors.retries import Task


class Call:
    """A method of an actor; `calls` has the futures of its calls."""

    def __init__(self):
        self.calls = []

    def remote(self, *args):
        self.calls.append(Future())
        return self

    def future(self):
        return self.calls[-1]


class Actor:
    def __init__(self):
        self.set_up, self.predict = Call(), Call()


class Cluster:
    """The module `ray`."""

    def __init__(self):
        self.killed, self.alive = [], True

    def remote(self, **options):
        return lambda worker: type("Class", (), {"remote": staticmethod(Actor)})

    def kill(self, actor, no_restart):
        self.killed.append(actor)

    def nodes(self):
        return [{"NodeID": "node", "Alive": self.alive}]

    def available_resources(self):
        return {"CPU": 1.0}


@pytest.fixture
def pool():
    pool = ActorPool(Cluster(), 2, [b""], None, {"num_cpus": 1})
    yield pool
    pool.kill()
    assert pool.workers == [] and pool.nodes() <= 1


def identity(**more):
    return ActorIdentity("node", "host", 7, clock(), **more)


def ready(pool, number):
    pool.workers[number].actor.set_up.calls[0].set_result(identity())
    assert pool.wait(0, ()) == []
    return pool.workers[number]


def tasks(count):
    return deque(Task(Batch(n, BatchKind.LINES, ["{}"], [n], [n + 1])) for n in range(count))


def test_only_actors_that_have_their_model_get_work(pool):
    waiting = tasks(5)
    pool.hand_out(waiting, 0)
    assert len(waiting) == 5
    worker = ready(pool, 1)
    pool.hand_out(waiting, 0)
    assert [task.batch.number for task in worker.tasks] == [0, 1]
    worker.actor.predict.calls[0].set_result(b"result")
    [event] = pool.wait(0, ())
    assert (event.worker, event.task.batch.number, event.message) == (worker, 0, b"result")
    assert len(worker.tasks) == 1 and pool.nodes() == 1


def test_while_it_is_probed_there_is_one_batch_at_a_time(pool):
    ready(pool, 0), ready(pool, 1)
    pool.use(is_probing=True, shares=True)
    waiting = tasks(3)
    pool.hand_out(waiting, 0)
    assert len(waiting) == 2


def test_a_death_is_known_when_nothing_is_on_its_way_any_more(pool):
    worker = ready(pool, 0)
    pool.hand_out(tasks(2), 0)
    first, second = worker.actor.predict.calls
    second.set_exception(RuntimeError("second"))
    assert pool.wait(0, ()) == []
    first.set_exception(RuntimeError("The actor died"))
    [event] = pool.wait(0, ())
    assert event.death.suspect is worker.tasks[0] and "The actor died" in str(event.death.error)
    worker.tasks.clear()
    pool.replace(worker)
    assert pool.restarts == 1 and worker not in pool.workers and len(pool.workers) == 2


def test_a_node_that_is_gone_exonerates(pool):
    ready(pool, 0)
    pool.hand_out(tasks(1), 0)
    pool._ray.alive = False
    pool.workers[0].actor.predict.calls[0].set_exception(RuntimeError("gone"))
    [event] = pool.wait(0, ())
    assert event.death.suspect is None and event.death.is_exonerated


def test_a_batch_that_takes_too_long_ends_its_actor():
    pool = ActorPool(Cluster(), 1, [b""], None, {}, batch_timeout=1e-9)
    worker = ready(pool, 0)
    pool.hand_out(tasks(1), 0)
    assert pool.wait(0, ()) == [] and pool._ray.killed == [worker.actor]
    worker.actor.predict.calls[0].set_exception(RuntimeError("killed"))
    [event] = pool.wait(0, ())
    assert type(event.death.error) is WorkerTimeout and event.death.suspect is worker.tasks[0]
    pool.kill()


def test_a_model_that_cannot_be_unpacked_says_where_and_why(pool):
    error = RemoteError.of(ModuleNotFoundError("No module named 'mine'"))
    pool.workers[0].actor.set_up.calls[0].set_result(identity(error=error))
    with pytest.raises(SettingsError, match="on host .*No module named 'mine'.*runtime_env"):
        pool.wait(0, ())


def test_a_cluster_without_room_is_reported(pool, monkeypatch, caplog):
    monkeypatch.setattr(actor_pool, "_PATIENCE", 0.0)
    pool._patience = 0.0
    pool.wait(0, ())
    assert "no worker for 0 s: each needs {'num_cpus': 1}" in caplog.text
