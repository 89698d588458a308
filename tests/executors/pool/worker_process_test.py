"""Processes that are started, signalled, waited for and reaped."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.messages import Batch, BatchKind, WorkerOptions
from allennlp_parallel_predict.common.serialization import dumps, load_result
from allennlp_parallel_predict.executors.pool.handle import describe_end
from allennlp_parallel_predict.executors.pool.worker_process import WorkerProcess, spawn_worker
from allennlp_parallel_predict.models import sharing
from allennlp_parallel_predict.models.state import RandomStates
from allennlp_parallel_predict.worker.process import READY, WorkerSetup
from tests.support.faults import faulty_archive, wait_until

pytestmark = pytest.mark.timeout(120)


def fail(where):
    raise RuntimeError(f"CUDA error: invalid argument, in the {where}")


class NotExported:
    def __reduce__(self):
        fail("parent")


class NotImported:
    def __reduce__(self):
        return fail, ("worker",)


@pytest.mark.parametrize("on_gpu, where", [(NotExported(), "parent"), (NotImported(), "worker")])
def test_it_has_a_model_of_its_own_and_says_so(tmp_path, caplog, capfd, on_gpu, where):
    predictor = Predictor.from_path(str(faulty_archive(tmp_path)), "faulty")
    states = RandomStates.read()
    setup = WorkerSetup(WorkerOptions(), 1, None, -1, True, time.monotonic(), states)
    with caplog.at_level(logging.WARNING):
        worker = spawn_worker(sharing.pack(predictor), setup, on_gpu)
    received = []

    def answers():
        received.extend(map(bytes, worker.channel.receive()[0]))
        return received

    try:
        assert wait_until(answers, 90)[0] == READY
        batch = Batch(0, BatchKind.LINES, [json.dumps({"n": 5})], [0], [1])
        worker.channel.send(dumps((*batch.to_message(), True)))
        wait_until(lambda: len(answers()) > 1)
        assert load_result(received[1]).outputs == ['{"n": 5, "pad": ""}\n']
    finally:
        worker.signal(9)
        worker.wait(10)
    said = caplog.text if where == "parent" else capfd.readouterr().err
    assert f"a model of its own (CUDA error: invalid argument, in the {where})" in said


@pytest.fixture
def start():
    """Starts a shell as a worker, forked or with a `Popen`."""
    started = []

    def begin(code, is_spawned=True):
        mine, theirs = socket.socketpair()
        theirs.close()
        if is_spawned:
            command = ["sh", "-c", code]
            child = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)
            process = WorkerProcess(child.pid, mine, child)
        else:
            pid = os.fork()
            if pid == 0:
                os.setsid()
                os.execv("/bin/sh", ["sh", "-c", code])
            process = WorkerProcess(pid, mine)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.signal(signal.SIGKILL)
        process.wait(10)
        process.channel.close()


@pytest.mark.parametrize("is_spawned", [False, True])
@pytest.mark.parametrize(
    "code, status, text",
    [
        ("exit 0", 0, "ended before its work was done"),
        ("exit 7", 7, "ended with exit status 7"),
        ("kill -9 $$", -9, "was ended by SIGKILL, perhaps for want of memory"),
        ("kill -11 $$", -11, "was ended by SIGSEGV"),
    ],
)
def test_how_it_ended(start, code, status, text, is_spawned):
    process = start(code, is_spawned)
    assert process.wait(30) == status == process.poll()
    assert describe_end(process) == text
    process.signal(signal.SIGKILL)  # there is nobody, and that is no error


def test_it_is_not_waited_for_longer_than_allowed(start):
    process = start("sleep 100")
    assert process.wait(0.01) is None
    process.signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="macOS before Python 3.13")
def test_what_it_has_started_ends_with_it(start):
    process = start(f"{sys.executable} -c 'import time; time.sleep(1000)' & echo $!; exit 3")
    child = int(process._child.stdout.readline())
    assert process.wait(30) == 3
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        if "\nState:\tZ" in open(f"/proc/{child}/status").read():
            break
        time.sleep(0.01)
    assert time.monotonic() < deadline


def lives(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.mark.skipif(not hasattr(os, "waitid"), reason="macOS before Python 3.13")
def test_also_if_it_ends_between_the_two_system_calls_of_a_look(start):
    """Which some of these do."""
    children = []
    for _ in range(60):
        process = start("sleep 100 & echo $!")
        children.append(int(process._child.stdout.readline()))
        while process.poll() is None:
            pass
    wait_until(lambda: not any(map(lives, children)))
