"""What a worker process does besides predicting."""

import os
import signal
import socket
import subprocess

import pytest

from allennlp_parallel_predict.common.messages import Batch, BatchKind
from allennlp_parallel_predict.executors.retries import Task
from allennlp_parallel_predict.worker import process
from allennlp_parallel_predict.worker.connection import send_blocking


def in_fork(function):
    """The exit status of a copy of this process that runs a function."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        process.run_and_exit(function)
    return os.WEXITSTATUS(os.waitpid(pid, 0)[1])


def test_how_it_ends():
    def fail(error):
        raise error

    assert in_fork(lambda: None) == 0
    assert in_fork(lambda: fail(ValueError("x"))) == 1
    assert in_fork(lambda: fail(ConnectionError())) == 1
    assert in_fork(lambda: fail(SystemExit(0))) == 1  # its work was not done


@pytest.mark.parametrize(
    "size, alone, groups",
    [
        (1, [], [[0], [1], [2], [3], [4]]),
        (8, [], [[0], [1, 2, 3, 4]]),  # the first shows whether the model keeps state
        (3, [2], [[0], [1], [2], [3, 4]]),
    ],
)
def test_batches_that_are_there_are_predicted_at_once(size, alone, groups):
    mine, theirs = socket.socketpair()

    class Worker:
        most_at_once = size

    for number in range(5):
        task = Task(Batch(number, BatchKind.LINES, ["{}"], [number], [number + 1]))
        task.is_alone = number in alone
        send_blocking(mine, task.message())
    coming = process._groups(theirs, Worker())
    assert [[batch.number for batch in next(coming)] for _ in groups] == groups
    mine.close()
    assert list(coming) == []
    theirs.close()


def test_it_lets_go_of_the_parents_connections_and_keeps_its_own():
    mine, theirs = socket.socketpair()
    pipe_out, pipe_in = os.pipe()
    os.set_inheritable(pipe_in, True)

    def look():
        process._let_go_of_connections(keep=theirs.fileno())
        assert os.fstat(theirs.fileno()).st_ino != os.fstat(pipe_in).st_ino
        assert os.readlink(f"/proc/self/fd/{pipe_in}") == os.devnull
        theirs.sendall(b"still there")

    assert in_fork(look) == 0
    os.close(pipe_in)
    assert os.read(pipe_out, 1) == b"" and mine.recv(99) == b"still there"
    os.close(pipe_out)
    mine.close()
    theirs.close()


def test_it_is_a_group_of_its_own_and_leaves_interrupts_to_the_parent():
    parent = os.getpid()

    def look():
        process._become_worker(parent)
        assert os.getpgrp() == os.getpid()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert os.read(0, 1) == b""
        subprocess.run(["true"], check=True)

    assert in_fork(look) == 0
