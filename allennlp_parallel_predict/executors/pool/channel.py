"""
Messages of any size over a socket, each preceded by its length.

The parent's end never blocks, neither to read nor to write. That is what makes it impossible for
two processes to wait for each other, each with a large message half written, and for a stopped
worker to stop the parent.
"""

import socket
from collections import deque
from typing import Deque, List, Tuple

from allennlp_parallel_predict.common.recorder import in_stage
from allennlp_parallel_predict.common.serialization import (
    SMALL,
    HEADER_SIZE,
    pack_header,
    unpack_header,
)
from allennlp_parallel_predict.common.stages import RECEIVING, SENDING

_READ_SIZE = 1 << 18


class Channel:
    """The parent's end. Its owner watches the socket and calls `flush` and `receive`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._unsent: Deque[memoryview] = deque()
        self._received = bytearray()
        self.is_garbled = False
        """Whether something came that is no message: a predictor has written to the socket."""

    def send(self, message: bytes) -> bool:
        """Sends what the socket takes now; returns whether that was everything (else `flush`)."""
        if len(message) < SMALL:
            self._unsent.append(memoryview(pack_header(len(message)) + message))
        else:
            self._unsent += [memoryview(pack_header(len(message))), memoryview(message)]
        return self.flush()

    @in_stage(SENDING)
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

    @in_stage(RECEIVING)
    def receive(self, everything: bool = False) -> Tuple[List[memoryview], bool]:
        """
        Reads some of what is there, or everything.

        # Returns

        `Tuple[List[memoryview], bool]`
            The messages that are complete by now, and whether the other end is gone, or can no
            longer be understood.
        """
        if self.is_garbled:
            return [], True
        while True:
            try:
                data = self.socket.recv(_READ_SIZE)
            except BlockingIOError:
                return self._take_messages(), self.is_garbled
            except OSError:
                data = b""
            self._received += data
            if not data or not everything:
                return self._take_messages(), not data or self.is_garbled

    def _take_messages(self) -> List[memoryview]:
        messages = []
        received, start = memoryview(self._received), 0
        while len(received) - start >= HEADER_SIZE:
            body = start + HEADER_SIZE
            try:
                end = body + unpack_header(received, start)
            except ValueError:
                self.is_garbled = True
                break
            if len(received) < end:
                break
            messages.append(received[body:end])
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
