"""A worker's end of its connection with the parent. It waits, which the parent's never does."""

import socket
from typing import Optional

from allennlp_parallel_predict.common.recorder import in_stage, stage
from allennlp_parallel_predict.common.serialization import (
    SMALL,
    HEADER_SIZE,
    pack_header,
    unpack_header,
)
from allennlp_parallel_predict.common.stages import RECEIVING, SENDING


@in_stage(SENDING)
def send_blocking(sock: socket.socket, message: bytes) -> None:
    """The worker's way to send."""
    if len(message) < SMALL:
        sock.sendall(pack_header(len(message)) + message)
    else:
        sock.sendall(pack_header(len(message)))
        sock.sendall(message)


def receive_blocking(sock: socket.socket) -> Optional[bytearray]:
    """The worker's way to receive; `None` if the parent has finished or is gone."""
    header = _receive_exactly(sock, HEADER_SIZE)  # outside of all stages, which is waiting
    if header is None:
        return None
    with stage(RECEIVING):
        return _receive_exactly(sock, unpack_header(header))


def is_readable(sock: socket.socket) -> bool:
    """Whether there is something to receive, or nothing will ever come."""
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    return True


def _receive_exactly(sock: socket.socket, length: int) -> Optional[bytearray]:
    data = bytearray(length)
    view, done = memoryview(data), 0
    while done < length:
        received = sock.recv_into(view[done:])
        if not received:
            return None
        done += received
    return data
