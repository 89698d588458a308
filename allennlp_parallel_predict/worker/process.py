"""What a worker process does: it takes batches from its connection until there are no more."""

import gc
import logging
import os
import pickle
import signal
import socket
import stat
import sys
import traceback
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import (
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

from allennlp_parallel_predict.accelerate.operation_batching import OperationBatcher
from allennlp_parallel_predict.accelerate.predictor import tune_predictor
from allennlp_parallel_predict.accelerate.shared_layers import layers_to_share
from allennlp_parallel_predict.common import machine
from allennlp_parallel_predict.common.messages import Batch, BatchResult, WorkerOptions
from allennlp_parallel_predict.common.recorder import Recorder, in_stage, recording, stage
from allennlp_parallel_predict.common.serialization import dump_result
from allennlp_parallel_predict.common.stages import RECEIVING, SENDING
from allennlp_parallel_predict.models import sharing
from allennlp_parallel_predict.models.state import RandomStates
from allennlp_parallel_predict.worker.connection import is_readable, receive_blocking, send_blocking
from allennlp_parallel_predict.worker.worker import Worker

logger = logging.getLogger(__name__)

READY = b""
"""The first message of a worker, when it has its model."""

NOT_SHARED = "the memory of the GPU cannot be shared: this worker has a model of its own (%s)"

HANDLED_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class WorkerSetup(NamedTuple):
    """How one worker is to be set up."""

    options: WorkerOptions
    threads: int
    cpus: Optional[List[int]]
    cuda_device: int
    share_model: bool
    launched: float
    """When, by `time.monotonic()`."""
    random_states: RandomStates
    """Of the parent, which goes on from them if it predicts by itself."""


def forked_main(
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
            sharing.unshare(predictor._model)
        _serve(sock, predictor, setup)

    if setup.threads > 1:
        # If the parent has used torch with several threads, they are not in this process, but
        # OpenMP's books say that they are, and the first parallel operation would wait for them
        # for ever (pytorch#17199). The books are kept for each thread that starts operations: a
        # new one starts a pool anew.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(serve).result()
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


def spawned_main(sock_fileno: int, file_fileno: int, size: int, parent: int) -> None:
    """What a spawned worker runs."""
    run_and_exit(lambda: _serve_packed(sock_fileno, file_fileno, size, parent))


def _serve_packed(sock_fileno: int, file_fileno: int, size: int, parent: int) -> None:
    _become_worker(parent)
    sock = socket.socket(fileno=sock_fileno)
    memory = sharing.map_file(file_fileno, size)
    os.close(file_fileno)
    setup: WorkerSetup = pickle.loads(_receive_part(sock))
    predictor = sharing.unpack(_receive_part(sock), memory)
    on_gpu: Optional[torch.Tensor] = None
    try:
        on_gpu = pickle.loads(_receive_part(sock))
    except RuntimeError as error:
        logger.warning(NOT_SHARED, error)
    if setup.cuda_device >= 0:
        if on_gpu is not None:
            sharing.adopt(predictor._model, memory, on_gpu)
        predictor._model.cuda(setup.cuda_device)  # moves what is not there yet
        predictor.cuda_device = setup.cuda_device
    elif not setup.share_model:
        sharing.unshare(predictor._model)
    _serve(sock, predictor, setup)


def _receive_part(sock: socket.socket) -> bytearray:
    part = receive_blocking(sock)
    if part is None:
        raise ConnectionError  # the parent needs this worker no longer
    return part


def _serve(sock: socket.socket, predictor: Predictor, setup: WorkerSetup) -> None:
    """Predicts batch after batch until the parent has no more."""
    machine.tune_process(setup.threads, setup.cpus)
    options = setup.options
    # Whether it may is decided before it starts.
    layers = layers_to_share(predictor, is_asked_for=True) if options.group_size > 1 else []
    tune_predictor(predictor, options.exact, options.precision)
    batcher = OperationBatcher(layers, options.exact) if layers else None
    setup.random_states.restore()
    worker = Worker(predictor, options, batcher)
    send_blocking(sock, READY)
    if worker.profiler is not None:
        worker.profiler.started_at(setup.launched)
    with recording(worker.profiler or Recorder()):
        for batches in _groups(sock, worker):
            for result in worker.predict_at_once(batches):
                _send_result(sock, result)


def _groups(sock: socket.socket, worker: Worker) -> Iterator[List[Batch]]:
    """The batches that come, several at once of those that may be predicted so."""
    waiting: Deque[Tuple[Batch, bool]] = deque()
    size = 1  # the first is to be finished soon, and shows whether the model keeps state
    while True:
        while not waiting or len(waiting) < size and is_readable(sock):
            message = receive_blocking(sock)
            if message is None:
                yield from ([batch] for batch, _ in waiting)
                return
            with stage(RECEIVING):
                *batch, is_alone = pickle.loads(message)
                waiting.append((Batch.of_message(*batch), is_alone))
        group = [waiting.popleft()]
        while waiting and len(group) < size and not (group[-1][1] or waiting[0][1]):
            group.append(waiting.popleft())
        yield [batch for batch, _ in group]
        size = worker.most_at_once


@in_stage(SENDING)
def _send_result(sock: socket.socket, result: BatchResult) -> None:
    send_blocking(sock, dump_result(result))


def _become_worker(parent: int) -> None:
    # A group of its own, which the parent can end with all that the predictor has started.
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    # Ctrl-C reaches every process of a terminal; what it means is the parent's to decide.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED_SIGNALS)
    machine.die_with_parent(parent, signal.SIGKILL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # What the parent had not yet written is in the copy's buffer too, and must not come twice.
    sys.stdout = open(1, "w", closefd=False)


def run_and_exit(function: Callable[[], None]) -> NoReturn:
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
