"""
Messages of any size over a socket, each preceded by its length.

The parent's end never blocks, neither to read nor to write. That is what makes it impossible for
two processes to wait for each other, each with a large message half written, and for a stopped
worker to stop the parent.
"""

import pickle
import socket
import struct
from collections import deque
from typing import Any, Deque, List, Optional, Tuple

import cloudpickle

_LENGTH = struct.Struct("!Q")
_READ_SIZE = 1 << 18
_SMALL = 1 << 18


def dumps(value: Any) -> bytes:
    """Pickles, also classes and functions that are defined in a script or inside a function."""
    try:
        return pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    except Exception:
        return cloudpickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)


class Channel:
    """The parent's end. Its owner watches the socket and calls `flush` and `receive`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._unsent: Deque[memoryview] = deque()
        self._received = bytearray()

    def send(self, message: bytes) -> bool:
        """Sends what the socket takes now; returns whether that was everything (else `flush`)."""
        if len(message) < _SMALL:
            self._unsent.append(memoryview(_LENGTH.pack(len(message)) + message))
        else:
            self._unsent += [memoryview(_LENGTH.pack(len(message))), memoryview(message)]
        return self.flush()

    def flush(self) -> bool:
        """Goes on sending; returns whether everything is sent."""
        while self._unsent:
            data = self._unsent[0]
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                return False
            except OSError:
                # The other end is gone, and its owner will be told by `receive`.
                self._unsent.clear()
                return True
            if sent < len(data):
                self._unsent[0] = data[sent:]
            else:
                self._unsent.popleft()
        return True

    def receive(self, everything: bool = False) -> Tuple[List[memoryview], bool]:
        """
        Reads some of what is there, or everything.

        # Returns

        `Tuple[List[memoryview], bool]`
            The messages that are complete by now, and whether the other end is gone.
        """
        while True:
            try:
                data = self.socket.recv(_READ_SIZE)
            except BlockingIOError:
                return self._take_messages(), False
            except OSError:
                data = b""
            self._received += data
            if not data or not everything:
                return self._take_messages(), not data

    def _take_messages(self) -> List[memoryview]:
        messages = []
        received, start = memoryview(self._received), 0
        while len(received) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(received, start)
            end = start + _LENGTH.size + length
            if len(received) < end:
                break
            messages.append(received[start + _LENGTH.size : end])
            start = end
        if start:
            self._received = bytearray(received[start:])  # the messages are views of the old one
        return messages

    def finish(self) -> None:
        """Tells the other end that nothing more comes."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self.socket.close()


def send_blocking(sock: socket.socket, message: bytes) -> None:
    """The worker's way to send."""
    if len(message) < _SMALL:
        sock.sendall(_LENGTH.pack(len(message)) + message)
    else:
        sock.sendall(_LENGTH.pack(len(message)))
        sock.sendall(message)


def receive_blocking(sock: socket.socket) -> Optional[bytearray]:
    """The worker's way to receive; `None` if the parent has finished or is gone."""
    header = _receive_exactly(sock, _LENGTH.size)
    return _receive_exactly(sock, _LENGTH.unpack(header)[0]) if header is not None else None


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
