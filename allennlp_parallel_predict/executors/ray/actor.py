"""The worker as a Ray actor, and how the model reaches it."""

import ctypes
import io
import mmap
import os
import pickle
import socket
import sys
import time
from typing import Any, List, NamedTuple, Optional, Tuple

import numpy
import torch
from allennlp.predictors import Predictor

from allennlp_parallel_predict.accelerate.predictor import tune_predictor
from allennlp_parallel_predict.common import machine
from allennlp_parallel_predict.common.messages import Batch, WorkerOptions
from allennlp_parallel_predict.common.remote_errors import RemoteError
from allennlp_parallel_predict.common.serialization import dump_result
from allennlp_parallel_predict.models import sharing
from allennlp_parallel_predict.models.state import RandomStates
from allennlp_parallel_predict.worker.worker import Worker

SINGLE_FILES = "parallel_predict_single_files"
"""The folder in which modules travel that are not packages, which Ray does not take one by one."""
_PAGE = mmap.PAGESIZE
_PROT_READ = 1  # mman.h


class ActorSetup(NamedTuple):
    """How an actor is to be set up."""

    options: WorkerOptions
    threads: int
    uses_gpu: bool
    random_states: RandomStates
    """Those of the parent, with which `allennlp predict` would begin."""


class ActorIdentity(NamedTuple):
    """What an actor says of itself when it has its model."""

    node: str
    host: str
    pid: int
    clock: float
    """What to add to this machine's `time.monotonic()` for the time of day."""
    error: Optional[RemoteError] = None
    """Why it has no model."""

    def __str__(self) -> str:
        return f"the worker in process {self.pid} on {self.host}"


def clock() -> float:
    return time.time() - time.monotonic()


def pack(predictor: Predictor) -> Tuple[bytes, "numpy.ndarray[Any, Any]"]:
    """A predictor as bytes, and its tensors as an array with room for the borders of pages."""
    packed = sharing.pack(predictor)
    with packed.file:
        memory = numpy.zeros(packed.size + 2 * _PAGE, dtype=numpy.uint8)
        tensors = sharing.map_file(packed.file.fileno(), packed.size)
        memory[_PAGE : _PAGE + packed.size] = numpy.frombuffer(tensors, dtype=numpy.uint8)
    return packed.pickled, memory


class _Unpacker(sharing._Unpacker):
    """Leaves parameters where they are and copies all other tensors."""

    def _tensor(self, *args: Any) -> torch.Tensor:
        tensor = super()._tensor(*args)
        return tensor if isinstance(tensor, torch.nn.Parameter) else tensor.detach().clone()


class RayWorker:
    """A worker as a Ray actor, which does one thing at a time, in the order in which it is told."""

    def __init__(self) -> None:
        self._launched = time.monotonic()
        # Stdout belongs to the predictions; what is printed while predicting is caught by `Worker`.
        sys.stdout = sys.stderr

    def set_up(
        self, pickled: bytes, memory: "numpy.ndarray[Any, Any]", setup: ActorSetup
    ) -> ActorIdentity:
        """Unpacks the model. It does not raise: the exception is part of the answer."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        identity = ActorIdentity(node, socket.gethostname(), os.getpid(), clock())
        try:
            self._set_up(pickled, memory, setup)
        except Exception as error:
            return identity._replace(error=RemoteError.of(error))
        return identity

    def _set_up(self, pickled: bytes, memory: "numpy.ndarray[Any, Any]", setup: ActorSetup) -> None:
        _find_single_files()
        machine.tune_process(setup.threads)
        setup.random_states.restore()
        self._memory = memory  # as long as it is held, Ray keeps the memory
        self._predictor = _Unpacker(io.BytesIO(pickled), _read_only(memory)).load()
        model = self._predictor._model
        self._shared: List[Tuple[torch.Tensor, torch.Tensor]] = []
        self._is_shared = True
        if setup.uses_gpu:
            # Ray shows this process the GPUs that it has assigned to it, and no others.
            model.cuda(0)
            self._predictor.cuda_device = 0
        else:
            self._shared = [(parameter, parameter.data) for parameter in model.parameters()]
        tune_predictor(self._predictor, setup.options.exact, setup.options.precision)
        self._worker = Worker(self._predictor, setup.options)
        if self._worker.profiler is not None:
            self._worker.profiler.started_at(self._launched)

    def predict(self, message: bytes, shared: bool) -> bytes:
        """
        Predicts a batch, with the parameters in the node's memory or in this process's own.
        """
        if shared != self._is_shared:
            for parameter, data in self._shared:
                parameter.data = data if shared else data.clone()
            self._is_shared = shared
            self._worker.accept_changes()
        return dump_result(self._worker.predict(Batch.of_message(*pickle.loads(message)[:-1])))


def _read_only(memory: "numpy.ndarray[Any, Any]") -> Any:
    """The buffer of the tensors in the array of `pack`, which nobody can write to from now on."""
    address = memory.ctypes.data
    start = -(-address // _PAGE) * _PAGE
    end = (address + memory.nbytes) // _PAGE * _PAGE
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _PROT_READ):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot protect the model's memory: {os.strerror(number)}")
    # By its address, as torch warns of a buffer that says it is read-only.
    return (ctypes.c_char * (memory.nbytes - 2 * _PAGE)).from_address(address + _PAGE)


def _find_single_files() -> None:
    try:
        folder = __import__(SINGLE_FILES)
    except ImportError:
        return  # there were none
    sys.path += [path for path in folder.__path__ if path not in sys.path]
