"""How objects become bytes, and results messages."""

import pickle
import struct
from typing import Any

import cloudpickle

from allennlp_parallel_predict.common.messages import BatchResult, Failure
from allennlp_parallel_predict.common.remote_errors import RemoteError


_HEADER = struct.Struct("!4sQ")
_MARK = b"\xa7apP"
HEADER_SIZE = _HEADER.size
MAX_SIZE = 1 << 36
"""Bytes of the largest message."""
SMALL = 1 << 18
"""Bytes up to which a message is copied behind its length, which saves a system call."""


def pack_header(size: int) -> bytes:
    """What precedes a message of so many bytes on a connection."""
    return _HEADER.pack(_MARK, size)


def unpack_header(data: Any, start: int = 0) -> int:
    """
    # Returns

    `int`
        The size of the message that follows.

    # Raises

    `ValueError`
        If this is no header: somebody else has written to the connection.
    """
    mark, size = _HEADER.unpack_from(data, start)
    if mark != _MARK or size > MAX_SIZE:
        raise ValueError(f"{bytes(data[start : start + HEADER_SIZE])!r} begins no message")
    return int(size)


def dumps(value: Any) -> bytes:
    """Pickles, also classes and functions that are defined in a script or inside a function."""
    try:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:
        return bytes(cloudpickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))


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
