"""
Whether a file of weights holds nothing but weights.

It is a pickle, which may name any function to be called when it is loaded. So it is first unpickled
with placeholders instead of tensors, which reads a few kilobytes; a name that is not of a tensor
or of a container of tensors is an error. What is loaded then asks for the same names.
"""

import io
import os
import pickle
import tarfile
from collections import OrderedDict
from contextlib import contextmanager
from typing import Any, Iterator

import torch
from torch._C import PyTorchFileReader

from allennlp_parallel_predict.common.errors import ArchiveError

TRUST = "ALLENNLP_PARALLEL_PREDICT_TRUST_ARCHIVE"
_TORCH_TRUSTS = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_ZIP = b"PK\x03\x04"
_PICKLES_OF_OLD = 5
"""Before torch 1.6: a magic number, a version, what kind of machine it was, the weights, and which
tensors follow."""
_ALLOWED = {
    "collections": {"OrderedDict"},
    "torch": {"Size", "device", "Tensor"},
    "torch._tensor": {"_rebuild_from_type_v2"},
    "torch._utils": {
        "_rebuild_meta_tensor_no_storage",
        "_rebuild_parameter",
        "_rebuild_parameter_with_state",
        "_rebuild_qtensor",
        "_rebuild_sparse_csr_tensor",
        "_rebuild_sparse_tensor",
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v3",
    },
    "torch.nn.parameter": {"Parameter", "Buffer"},
    "torch.serialization": {"_get_layout"},
}


def check_weights(path: str) -> None:
    """
    # Raises

    `ArchiveError`
        If loading the file could run code, or it is no file of weights.
    """
    if os.environ.get(TRUST) == "1":
        return
    try:
        with open(path, "rb") as file:
            is_zip = file.read(4) == _ZIP
            file.seek(0)
            if is_zip:
                _Checker(io.BytesIO(_record(path))).load()
            else:
                _check_old(file)
    except (ArchiveError, OSError):
        raise
    except Exception as error:
        raise ArchiveError(f"{os.path.basename(path)} holds no weights: {error}") from error


@contextmanager
def trusted() -> Iterator[None]:
    """Lets torch 2.6 and later, which restrict what is loaded too, load anything if asked to."""
    before = os.environ.get(_TORCH_TRUSTS)
    if os.environ.get(TRUST) == "1":
        os.environ[_TORCH_TRUSTS] = "1"
    try:
        yield
    finally:
        os.environ.pop(_TORCH_TRUSTS, None)
        if before is not None:
            os.environ[_TORCH_TRUSTS] = before


def _record(path: str) -> bytes:
    # torch's reader and no other: they may differ in what they make of a damaged file.
    reader: Any = PyTorchFileReader(path)
    if "constants.pkl" in reader.get_all_records():
        raise ArchiveError(f"{os.path.basename(path)} is a TorchScript program")
    return bytes(reader.get_record("data.pkl"))


def _check_old(file: Any) -> None:
    if tarfile.is_tarfile(file.name):  # torch would look into it for a pickle
        raise ArchiveError("its weights are in the format of torch 0.1")
    file.seek(0)
    for _ in range(_PICKLES_OF_OLD):
        _Checker(file).load()


class _Checker(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        found = getattr(torch, name, None) if module == "torch" else None
        is_storage = module in ("torch", "torch.cuda", "torch.storage") and name.endswith("Storage")
        if is_storage or isinstance(found, torch.dtype) or name in _ALLOWED.get(module, ()):
            return _Placeholder
        raise ArchiveError(
            f"its weights name {module}.{name}, which is neither a tensor nor a container of "
            "tensors, so that loading them could run code. If you trust whoever made the archive, "
            f"set the environment variable {TRUST}=1"
        )

    def persistent_load(self, pid: Any) -> Any:
        return _Placeholder()


class _Placeholder:
    """In place of a tensor, its storage and the functions that make them."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Placeholder":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass
