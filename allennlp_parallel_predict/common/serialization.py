"""How objects become bytes, and results messages."""

import pickle
import struct
from typing import Any

import cloudpickle

from allennlp_parallel_predict.common.messages import BatchResult, Failure
from allennlp_parallel_predict.common.remote_errors import RemoteError


LENGTH = struct.Struct("!Q")
"""What precedes each message on a connection: its length."""
SMALL = 1 << 18
"""Bytes up to which a message is copied behind its length, which saves a system call."""


def dumps(value: Any) -> bytes:
    """Pickles, also classes and functions that are defined in a script or inside a function."""
    try:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:
        return cloudpickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


def dump_result(result: BatchResult) -> bytes:
    """A result as a worker's message."""
    try:
        return dumps(tuple(result))
    except Exception as error:
        failure = Failure(0, RemoteError.of(error))
        return dumps(tuple(BatchResult(result.number, fatal=failure)))


def load_result(message: Any) -> BatchResult:
    """A worker's message as a result."""
    return BatchResult(*pickle.loads(message))
