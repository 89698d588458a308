"""
A worker in a process of its own: how it is started, what it does, how it ends.

Both ends are plain: `os.fork`, or a fresh interpreter with one socket, and no shared lock, queue or
helper process. `multiprocessing` would run the user's script again in a spawned child, which is
what makes scripts without a `__main__` guard fail.
"""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.reduction import ForkingPickler
from typing import Optional, Sequence

import torch
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.serialization import dumps
from allennlp_parallel_predict.executors.pool.channel import Channel
from allennlp_parallel_predict.models import sharing
from allennlp_parallel_predict.worker.process import (
    HANDLED_SIGNALS,
    NOT_SHARED,
    WorkerSetup,
    forked_main,
    run_and_exit,
)

logger = logging.getLogger(__name__)

_BOOT = """
import ctypes, json, os, sys
# As common/machine.py does it, but now: the imports below take seconds.
getattr(ctypes.CDLL(None), "prctl", lambda *_: None)(1, 9)
if os.getppid() != int(sys.argv[-1]):
    os._exit(1)
sys.path[:] = json.loads(sys.argv[1])
from allennlp_parallel_predict.worker.process import spawned_main
spawned_main(*map(int, sys.argv[2:]))
"""


class WorkerProcess:
    """
    The parent's handle on a worker process.

    # Parameters

    pid : `int`
        The process.
    sock : `socket.socket`
        The parent's end of the connection.
    child : `subprocess.Popen`, optional (default = `None`)
        The process, if it was spawned.
    """

    def __init__(
        self, pid: int, sock: socket.socket, child: Optional["subprocess.Popen[bytes]"] = None
    ) -> None:
        self.pid = pid
        self.channel = Channel(sock)
        self._child = child
        self._status: Optional[int] = None

    def poll(self) -> Optional[int]:
        """The exit status, negative for a signal, or `None` while the process lives."""
        has_ended = self._status is None and _has_ended(self.pid)
        if has_ended:
            # Before the process is reaped: after that, its number may be another's.
            _signal_group(self.pid, signal.SIGKILL)
        if has_ended is not False:
            self._status = self._child.poll() if self._child is not None else _reap(self.pid)
        return self._status

    def signal(self, number: int) -> None:
        """Signals the process, and those that it has started."""
        if self.poll() is None and not _signal_group(self.pid, number):
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)  # it does not lead its group yet

    def wait(self, seconds: float) -> Optional[int]:
        """Waits for the end, not longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return self._status


def _has_ended(pid: int) -> Optional[bool]:
    """Whether a process waits to be reaped; `None` if that cannot be known."""
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return None
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return None


def _signal_group(leader: int, number: int) -> bool:
    """Signals the processes of a group; returns whether there is one."""
    try:
        os.killpg(leader, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _reap(pid: int) -> Optional[int]:
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 0  # somebody else in this process has reaped it
    if not reaped:
        return None
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def fork_worker(
    predictor: Predictor, setup: WorkerSetup, inherited: Sequence[socket.socket]
) -> WorkerProcess:
    """
    Starts a worker as a copy of this process.

    # Parameters

    predictor : `Predictor`
        The predictor, which the copy has in memory.
    setup : `WorkerSetup`
        The worker's setup.
    inherited : `Sequence[socket.socket]`
        The parent's ends of other workers' connections. The child closes them: a worker whose
        parent dies sees the end of its connection only if nobody else holds it open.
    """
    parent_end, child_end = socket.socketpair()
    parent = os.getpid()
    # Until the child has let go of the parent's handlers, which write the parent's output.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED_SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            to_close = [parent_end, *inherited]
            run_and_exit(lambda: forked_main(predictor, setup, child_end, to_close, parent))
        child_end.close()
        return WorkerProcess(pid, parent_end)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def spawn_worker(
    packed: sharing.PackedPredictor, setup: WorkerSetup, on_gpu: Optional[torch.Tensor] = None
) -> WorkerProcess:
    """
    Starts a worker in a fresh interpreter, which maps the packed model.

    # Parameters

    packed : `PackedPredictor`
        The predictor.
    setup : `WorkerSetup`
        The worker's setup.
    on_gpu : `torch.Tensor`, optional (default = `None`)
        The copy of the packed model that the workers of its GPU share.
    """
    parent_end, child_end = socket.socketpair()
    passed = [child_end.fileno(), packed.file.fileno()]
    numbers = [*passed, packed.size, os.getpid()]
    child = subprocess.Popen(
        [sys.executable, "-c", _BOOT, json.dumps(sys.path), *map(str, numbers)],
        stdin=subprocess.DEVNULL,
        pass_fds=passed,
        env={**os.environ, "OMP_NUM_THREADS": str(setup.threads)},
        start_new_session=True,  # out of reach of Ctrl-C, until it ignores it
    )
    child_end.close()
    process = WorkerProcess(child.pid, parent_end, child)
    process.channel.send(dumps(setup))
    process.channel.send(packed.pickled)
    # Each worker gets a handle of its own, since torch counts who uses the memory.
    try:
        handle = ForkingPickler.dumps(on_gpu)
    except RuntimeError as error:  # no CUDA IPC, as in some containers and virtual machines
        logger.warning(NOT_SHARED, error)
        handle = ForkingPickler.dumps(None)
    process.channel.send(bytes(handle))
    return process
