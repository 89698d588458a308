"""
A worker in a process of its own: how it is started, what it does, how it ends.

Both ends are plain: `os.fork`, or a fresh interpreter with one socket, and no shared lock, queue or
helper process. `multiprocessing` would run the user's script again in a spawned child, which is
what makes scripts without a `__main__` guard fail.
"""

import gc
import json
import os
import pickle
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from typing import (
    Any,
    Callable,
    Deque,
    Iterator,
    List,
    NamedTuple,
    NoReturn,
    Optional,
    Sequence,
    Tuple,
)

import torch
from allennlp.predictors import Predictor
from torch.multiprocessing.reductions import ForkingPickler

from allennlp_parallel_predict import model_sharing, tuning
from allennlp_parallel_predict.batching import Batch
from allennlp_parallel_predict.errors import RemoteError
from allennlp_parallel_predict.executors.channel import (
    Channel,
    dumps,
    is_readable,
    receive_blocking,
    send_blocking,
)
from allennlp_parallel_predict.lockstep import Lockstep, layers_to_share
from allennlp_parallel_predict.worker import BatchResult, Failure, Worker, WorkerOptions

READY = b""
"""The first message of a worker, when it has its model."""

_HANDLED = (signal.SIGINT, signal.SIGTERM)

_BOOT = """
import ctypes, json, os, sys
# As tuning.die_with_parent does it; but now, for the imports below take seconds.
getattr(ctypes.CDLL(None), "prctl", lambda *_: None)(1, 9)
if os.getppid() != int(sys.argv[-1]):
    os._exit(1)
sys.path[:] = json.loads(sys.argv[1])
from allennlp_parallel_predict.executors.worker_process import spawned_main
spawned_main(*map(int, sys.argv[2:]))
"""


class WorkerSetup(NamedTuple):
    """How one worker is to be set up."""

    options: WorkerOptions
    threads: int
    cpus: Optional[List[int]]
    cuda_device: int
    share_model: bool
    launched: float
    """When, by `time.monotonic()`."""


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
        self, pid: int, sock: socket.socket, child: Optional[subprocess.Popen] = None
    ) -> None:
        self.pid = pid
        self.channel = Channel(sock)
        self._child = child
        self._status: Optional[int] = None

    def poll(self) -> Optional[int]:
        """The exit status, negative for a signal, or `None` while the process lives."""
        if self._status is None:
            if self._child is not None:
                self._status = self._child.poll()
            else:
                self._status = _reap(self.pid)
        return self._status

    def signal(self, number: int) -> None:
        if self.poll() is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def wait(self, seconds: float) -> Optional[int]:
        """Waits for the end, not longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while self.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        return self._status


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
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            to_close = [parent_end, *inherited]
            _run_and_exit(lambda: _forked_main(predictor, setup, child_end, to_close, parent))
        child_end.close()
        return WorkerProcess(pid, parent_end)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _forked_main(
    predictor: Predictor,
    setup: WorkerSetup,
    sock: socket.socket,
    to_close: Sequence[socket.socket],
    parent: int,
) -> None:
    # What the parent holds stays out of this process's garbage collections, whose looking would
    # copy the pages that it lies on. (Not in the parent, which may have other things to do and
    # garbage of its own; and not collected first: that takes half a second and frees little.)
    gc.freeze()
    for other in to_close:
        other.close()
    _let_go_of_connections(sock.fileno())
    _become_worker(parent)

    def serve() -> None:
        if not setup.share_model:
            model_sharing.unshare(predictor._model)
        _serve(sock, predictor, setup)

    if setup.threads > 1:
        # If the parent has used torch with several threads, they are not in this process, but
        # OpenMP's books say that they are, and the first parallel operation would wait for them
        # for ever (pytorch#17199). The books are kept for each thread that starts operations: a
        # new one starts a pool anew.
        _run_in_thread(serve)
    else:
        serve()


def _let_go_of_connections(keep: int) -> None:
    """
    Lets go of the sockets and pipes that the parent has open: whoever is at their other end shall
    see it when the parent closes them. Their numbers stay taken, as objects here still know them.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in map(int, os.listdir("/dev/fd")):
        try:
            mode = os.fstat(number).st_mode
        except OSError:
            continue  # the folder that was listed
        if number > 2 and number != keep and (stat.S_ISSOCK(mode) or stat.S_ISFIFO(mode)):
            os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


def _run_in_thread(function: Callable[[], None]) -> None:
    failed: List[BaseException] = []

    def run() -> None:
        try:
            function()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def spawn_worker(
    packed: model_sharing.PackedPredictor, setup: WorkerSetup, on_gpu: Optional[torch.Tensor] = None
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
    process.channel.send(bytes(ForkingPickler.dumps(on_gpu)))
    return process


def spawned_main(sock_fileno: int, file_fileno: int, size: int, parent: int) -> None:
    """What a spawned worker runs."""
    _run_and_exit(lambda: _serve_packed(sock_fileno, file_fileno, size, parent))


def _serve_packed(sock_fileno: int, file_fileno: int, size: int, parent: int) -> None:
    _become_worker(parent)
    sock = socket.socket(fileno=sock_fileno)
    memory = model_sharing.map_file(file_fileno, size)
    os.close(file_fileno)
    setup: WorkerSetup = pickle.loads(_receive_part(sock))
    predictor = model_sharing.unpack(_receive_part(sock), memory)
    on_gpu: Optional[torch.Tensor] = pickle.loads(_receive_part(sock))
    if setup.cuda_device >= 0:
        if on_gpu is not None:
            model_sharing.adopt(predictor._model, memory, on_gpu)
        predictor._model.cuda(setup.cuda_device)  # moves what is not there yet
        predictor.cuda_device = setup.cuda_device
    elif not setup.share_model:
        model_sharing.unshare(predictor._model)
    _serve(sock, predictor, setup)


def _receive_part(sock: socket.socket) -> bytearray:
    part = receive_blocking(sock)
    if part is None:
        raise ConnectionError  # the parent needs this worker no longer
    return part


def _serve(sock: socket.socket, predictor: Predictor, setup: WorkerSetup) -> None:
    """Predicts batch after batch until the parent has no more."""
    tuning.tune_process(setup.threads, setup.options.exact, setup.cpus)
    options = setup.options
    # Whether it may is decided before it starts.
    layers = layers_to_share(predictor, is_asked_for=True) if options.lockstep else []
    tuning.tune_predictor(predictor, options.exact)
    lockstep = Lockstep(layers, options.exact) if layers else None
    worker = Worker(predictor, options, lockstep)
    send_blocking(sock, READY)
    receive, load, send = receive_blocking, pickle.loads, _send_result
    if worker.profiler is not None:
        worker.profiler.started_at(setup.launched)
        receive, load, send = worker.profiler.watch_connection(receive, load, send)
    for batches in _groups(sock, receive, load, worker):
        for result in worker.predict_at_once(batches):
            send(sock, result)


def _groups(
    sock: socket.socket, receive: Any, load: Callable[[Any], Any], worker: Worker
) -> Iterator[List[Batch]]:
    """The batches that come, several at once of those that may be predicted so."""
    waiting: Deque[Tuple[Batch, bool]] = deque()
    size = 1  # the first is to be finished soon, and shows whether the model keeps state
    while True:
        while not waiting or len(waiting) < size and is_readable(sock):
            message = receive(sock)
            if message is None:
                yield from ([batch] for batch, _ in waiting)
                return
            for *batch, is_alone in load(message):
                waiting.append((Batch.of_message(*batch), is_alone))
        group = [waiting.popleft()]
        while waiting and len(group) < size and not (group[-1][1] or waiting[0][1]):
            group.append(waiting.popleft())
        yield [batch for batch, _ in group]
        size = worker.most_at_once


def _send_result(sock: socket.socket, result: BatchResult) -> None:
    send_blocking(sock, dump_result(result))


def dump_result(result: BatchResult) -> bytes:
    """A result as a worker's message."""
    try:
        return dumps(tuple(result))
    except Exception as error:
        failure = Failure(0, RemoteError.of(error))
        return dumps(tuple(BatchResult(result.number, fatal=failure)))


def _become_worker(parent: int) -> None:
    # Ctrl-C reaches every process of a terminal; what it means is the parent's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    tuning.die_with_parent(parent, signal.SIGKILL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # What the parent had not yet written is in the copy's buffer too, and must not come twice.
    sys.stdout = open(1, "w", closefd=False)


def _run_and_exit(function: Callable[[], None]) -> NoReturn:
    """Runs a worker without ever getting back into the parent's code."""
    status = 1
    try:
        function()
        status = 0
    except ConnectionError:
        pass  # the parent is gone, or has let go of this worker
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def load_result(message: Any) -> BatchResult:
    """A worker's message as a result."""
    return BatchResult(*pickle.loads(message))
