"""
What touches a Ray cluster: joining it, bringing code and model there, and the worker on its nodes.

    driver                            object store of each node      actors of the node
    pack the predictor ─► ray.put ─►  the tensors, once         ─►   map them, all the same pages
                                      the pickled rest          ─►   unpickle, each its own objects

Ray maps an object into every process of a node, and for writing: a model that wrote to a parameter
there would silently change it for its neighbours. So an actor makes its view of the memory
read-only, and gives the model parameters of its own for as long as it may want to write to them
(`shared=False`). Whatever is not a parameter is always the actor's own.
"""

import ctypes
import io
import logging
import mmap
import os
import pickle
import signal
import socket
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy
import torch
from allennlp.predictors import Predictor

from allennlp_parallel_predict import model_sharing, tuning
from allennlp_parallel_predict.batching import Batch
from allennlp_parallel_predict.errors import RemoteError, SettingsError
from allennlp_parallel_predict.executors.worker_process import dump_result
from allennlp_parallel_predict.worker import Worker, WorkerOptions

LOCAL = "local"
"""The address of a cluster of this machine alone."""

_SINGLE_FILES = "parallel_predict_single_files"
"""The folder in which modules travel that are not packages, which Ray does not take one by one."""

_TIMEOUT = 5.0
"""Seconds within which the head of a cluster must answer; Ray itself waits for minutes."""
_PAGE = mmap.PAGESIZE
_PROT_READ = 1  # mman.h


class Connection:
    """
    The connection of this process with a cluster.

    # Parameters

    address : `str`
        See `RayExecutor`.
    runtime_env : `Dict[str, Any]`, optional (default = `None`)
        See `RayExecutor`.
    """

    def __init__(self, address: str, runtime_env: Optional[Dict[str, Any]]) -> None:
        if address not in ("auto", LOCAL) and not _host_and_port(address):
            raise SettingsError(
                f'executor.address must be "auto", "local" or "host:port", but it is {address!r}'
            )
        self._address = address
        self._runtime_env = runtime_env
        self._is_ours = False

    def open(self) -> Any:
        """
        Connects, unless this process is connected already, and returns the module `ray`.

        # Raises

        `SettingsError`
            If Ray is not installed or the cluster cannot be reached.
        """
        try:
            import ray
        except ImportError as error:
            raise SettingsError(
                "executor.type 'ray' needs Ray: pip install 'allennlp-parallel-predict[ray]' "
                f"({error})"
            ) from error
        if ray.is_initialized():
            return ray
        address = (
            os.environ.get("RAY_ADDRESS", "auto") if self._address == "auto" else self._address
        )
        _check_reachable(address)
        in_main_thread = threading.current_thread() is threading.main_thread()
        on_sigterm = signal.getsignal(signal.SIGTERM)
        more: Dict[str, Any] = {"include_dashboard": False} if address == LOCAL else {}
        try:
            with tempfile.TemporaryDirectory() as folder:
                environment = self._runtime_env
                if environment is None:
                    environment = {"py_modules": local_code(Path(folder))}
                ray.init(
                    address=address, runtime_env=environment, logging_level=logging.WARNING, **more
                )
            self._is_ours = True
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            ray.shutdown()
            raise SettingsError(f"cannot join the Ray cluster at {address}: {error}") from error
        finally:
            if in_main_thread:
                signal.signal(signal.SIGTERM, on_sigterm)  # Ray puts its own in its place
        return ray

    def close(self) -> None:
        """Disconnects, if it was this that had connected; a local cluster ends."""
        if self._is_ours:
            import ray

            self._is_ours = False
            ray.shutdown()


def _host_and_port(address: str) -> Optional[Tuple[str, int]]:
    host, _, port = address.rpartition(":")
    return (host, int(port)) if host and "/" not in host and port.isdigit() else None


def _check_reachable(address: str) -> None:
    host_and_port = _host_and_port(address)
    if host_and_port is None:
        return
    try:
        socket.create_connection(host_and_port, _TIMEOUT).close()
    except OSError as error:
        raise SettingsError(f"no Ray cluster can be reached at {address}: {error}") from error


def local_code(folder: Path) -> List[str]:
    """
    The imported packages that are not installed: the current directory's, those of
    `--include-package`, local plugins. Modules that are single files are put into `folder`.
    """
    packages = []
    single_files = folder / _SINGLE_FILES
    single_files.mkdir()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if "." in name or name == "__main__" or not file or not file.endswith(".py"):
            continue
        path = Path(file).resolve()
        if path.name == "__init__.py":
            path = path.parent
        if path.stem == name and not _is_installed(path):
            if path.is_dir():
                packages.append(str(path))
            else:
                (single_files / path.name).write_bytes(path.read_bytes())
    return packages + [str(single_files)] * any(single_files.iterdir())


def _is_installed(path: Path) -> bool:
    standard = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    return (
        any(folder in path.parents for folder in standard)
        or any(folder.name in ("site-packages", "dist-packages") for folder in path.parents)
        or any(path.parent.glob("*.dist-info"))  # pip install --target
    )


class ActorSetup(NamedTuple):
    """How an actor is to be set up."""

    options: WorkerOptions
    threads: int
    uses_gpu: bool


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


def pack(predictor: Predictor) -> Tuple[bytes, numpy.ndarray]:
    """A predictor as bytes, and its tensors as an array with room for the borders of pages."""
    packed = model_sharing.pack(predictor)
    with packed.file:
        memory = numpy.zeros(packed.size + 2 * _PAGE, dtype=numpy.uint8)
        tensors = model_sharing.map_file(packed.file.fileno(), packed.size)
        memory[_PAGE : _PAGE + packed.size] = numpy.frombuffer(tensors, dtype=numpy.uint8)
    return packed.pickled, memory


class _Unpacker(model_sharing._Unpacker):
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

    def set_up(self, pickled: bytes, memory: numpy.ndarray, setup: ActorSetup) -> ActorIdentity:
        """Unpacks the model. It does not raise: the exception is part of the answer."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        identity = ActorIdentity(node, socket.gethostname(), os.getpid(), clock())
        try:
            self._set_up(pickled, memory, setup)
        except Exception as error:
            return identity._replace(error=RemoteError.of(error))
        return identity

    def _set_up(self, pickled: bytes, memory: numpy.ndarray, setup: ActorSetup) -> None:
        _find_single_files()
        tuning.tune_process(setup.threads, setup.options.exact)
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
        tuning.tune_predictor(self._predictor, setup.options.exact)
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
        return dump_result(self._worker.predict(Batch.of_message(*pickle.loads(message))))


def _read_only(memory: numpy.ndarray) -> Any:
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
        folder = __import__(_SINGLE_FILES)
    except ImportError:
        return  # there were none
    sys.path += [path for path in folder.__path__ if path not in sys.path]
