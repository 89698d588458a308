"""
One model, many processes.

A forked worker shares the model because the kernel shares the memory until somebody writes to it.
For a spawned one the predictor is packed: its tensors are laid into a memory file once, and the
rest is pickled. Every worker maps the file privately, so that a model that writes to its parameters
gets a copy of the page that it writes to, and can never disturb its neighbours.

The memory file is anonymous (`memfd_create`): it needs no room in /dev/shm (64 MB in Docker),
takes one file descriptor however many tensors there are, and cannot be left behind.

On a GPU, the file's content is copied there once, and the workers of that GPU share the copy.
"""

import io
import mmap
import os
import pickle
import tempfile
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import cloudpickle
import torch
from torch.nn.parameter import Parameter
from allennlp.predictors.predictor import Predictor

_ALIGNMENT = 64


class PackedPredictor(NamedTuple):
    """A predictor as it travels."""

    pickled: bytes
    """Everything but the tensors."""
    file: Any
    """The open memory file that holds the tensors."""
    size: int
    """The length of the file, in bytes."""


def pack(predictor: Predictor) -> PackedPredictor:
    """
    Packs a predictor and lets its own parameters live in the memory file too, so that the
    model is in memory once.

    # Raises

    `Exception`
        Whatever pickling an attribute of the predictor raises.
    """
    buffer = io.BytesIO()
    packer = _Packer(buffer)
    packer.dump(predictor)
    file = _memory_file()
    os.ftruncate(file.fileno(), max(packer.size, 1))
    with mmap.mmap(file.fileno(), max(packer.size, 1)) as memory:
        for offset, flat in packer.storages:
            memory[offset : offset + flat.nbytes] = memoryview(flat)
    packed = PackedPredictor(buffer.getvalue(), file, max(packer.size, 1))
    mapped = map_file(file.fileno(), packed.size)
    for tensor, location in packer.tensors:
        tensor.data = _tensor_at(mapped, *location)
    return packed


def unpack(pickled: Any, memory: Any) -> Predictor:
    """
    # Parameters

    pickled : `Any`
        The bytes of `PackedPredictor.pickled`.
    memory : `Any`
        A writable buffer with the content of the memory file.
    """
    predictor: Predictor = _Unpacker(io.BytesIO(pickled), memory).load()
    return predictor


def map_file(fileno: int, size: int) -> mmap.mmap:
    """Maps a memory file so that writing to it stays private to this process."""
    return mmap.mmap(fileno, size, access=mmap.ACCESS_COPY)


def copy_to_gpu(packed: PackedPredictor, cuda_device: int) -> torch.Tensor:
    """The content of the memory file on a GPU, for the workers there to share (CUDA IPC)."""
    return _bytes_of(map_file(packed.file.fileno(), packed.size)).cuda(cuda_device)


def adopt(model: torch.nn.Module, memory: Any, shared: torch.Tensor) -> None:
    """
    Lets the parameters and buffers of an unpacked model be those of a shared copy of its memory.

    # Parameters

    model : `torch.nn.Module`
        The model, as it was unpacked.
    memory : `Any`
        The buffer that it was unpacked with.
    shared : `torch.Tensor`
        A copy of that buffer, perhaps on a GPU. Shape: `(size of the memory file,)`.
    """
    start = _bytes_of(memory).data_ptr()
    for tensor in [*model.parameters(), *model.buffers()]:
        place = tensor.data_ptr() - start
        if tensor.numel() and 0 <= place < len(shared):
            end = place + _extent(tensor.size(), tensor.stride()) * tensor.element_size()
            flat = shared[place:end].view(tensor.dtype)
            tensor.data = flat.as_strided(tensor.size(), tensor.stride())


def unshare(model: torch.nn.Module) -> None:
    """Gives the model parameters and buffers of its own (`share_model: false`)."""
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()


def _memory_file() -> Any:
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("allennlp_parallel_predict"), "r+b", buffering=0)
    return tempfile.TemporaryFile()


class _Packer(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
    """Pickles tensors as places in a memory that is filled afterwards."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.size = 0
        self.storages: List[Tuple[int, Any]] = []
        self.tensors: List[Tuple[torch.Tensor, Tuple[Any, ...]]] = []
        self._offsets: Dict[int, int] = {}

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.Tensor) and _can_be_mapped(obj):
            location = (
                self._place(obj),
                obj.dtype,
                tuple(obj.size()),
                obj.stride(),
                obj.storage_offset(),
            )
            self.tensors.append((obj, location))
            return _tensor_at_location, (*location, type(obj), obj.requires_grad)
        return super().reducer_override(obj)

    def _place(self, tensor: torch.Tensor) -> int:
        """The offset of the tensor's storage, which other tensors may share."""
        storage = _untyped_storage(tensor)
        key = storage.data_ptr()
        if key not in self._offsets:
            flat = torch.empty(0, dtype=torch.uint8).set_(storage).numpy()
            self._offsets[key] = self.size
            self.storages.append((self.size, flat))
            self.size += -(-flat.nbytes // _ALIGNMENT) * _ALIGNMENT
        return self._offsets[key]


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, memory: Any) -> None:
        super().__init__(file)
        self._memory = memory

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == (__name__, _tensor_at_location.__name__):
            return self._tensor
        return super().find_class(module, name)

    def _tensor(self, *args: Any) -> torch.Tensor:
        *location, tensor_type, requires_grad = args
        tensor = _tensor_at(self._memory, *location)
        if tensor_type is Parameter:
            return Parameter(tensor, requires_grad=requires_grad)
        return tensor.requires_grad_(requires_grad)


def _untyped_storage(tensor: torch.Tensor) -> Any:
    if hasattr(tensor, "untyped_storage"):
        return tensor.untyped_storage()
    return tensor.storage()._untyped()  # before torch 2


def _tensor_at_location(*args: Any) -> torch.Tensor:
    raise AssertionError("the unpacker takes this function's place")


def _tensor_at(
    memory: Any,
    place: int,
    dtype: torch.dtype,
    size: Tuple[int, ...],
    stride: Tuple[int, ...],
    storage_offset: int,
) -> torch.Tensor:
    count = storage_offset + _extent(size, stride)
    flat = torch.frombuffer(memory, dtype=dtype, count=count, offset=place)
    return flat.as_strided(size, stride, storage_offset)


def _extent(size: Sequence[int], stride: Sequence[int]) -> int:
    """The elements between the first and the last of a tensor, both included."""
    return 1 + sum((n - 1) * step for n, step in zip(size, stride))


def _bytes_of(memory: Any) -> torch.Tensor:
    return torch.frombuffer(memory, dtype=torch.uint8)


def _can_be_mapped(tensor: torch.Tensor) -> bool:
    return (
        type(tensor) in (torch.Tensor, Parameter)
        and tensor.device.type == "cpu"
        and tensor.layout == torch.strided
        and tensor.is_leaf
        and not tensor.is_quantized
        and tensor.numel() > 0
        and not tensor.is_neg()
        and not tensor.is_conj()
    )
