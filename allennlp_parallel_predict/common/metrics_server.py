"""Answers requests for metrics in a loop that has other work to do."""

import contextlib
import re
import socket
from typing import List, Tuple

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.metrics import MetricsRegistry

_MOST_CONNECTIONS = 16
_LONGEST_REQUEST = 1 << 16


class MetricsServer:
    """
    Answers every HTTP request with the metrics. It has no thread, as a process that forks should
    not have one, and it never waits for a client: `serve` is called when a client may be there.

    # Parameters

    registry : `MetricsRegistry`
        The metrics.
    address : `str`
        `"9100"` for that port of this machine alone, `"0.0.0.0:9100"` for that of all its networks;
        port 0 is any that is free.

    # Raises

    `SettingsError`
        If this is no address, or the port is in use.
    """

    def __init__(self, registry: MetricsRegistry, address: str) -> None:
        host, port = _parsed(address)
        self._registry = registry
        self._connections: List[socket.socket] = []
        try:
            self._listener = socket.create_server((host, port))
        except OSError as error:
            raise SettingsError(
                f"cannot serve metrics on {host}:{port}: {error.strerror}. Give --metrics another "
                "port, or 0 for any that is free"
            ) from error
        self._listener.setblocking(False)
        self.url = f"http://{host}:{self._listener.getsockname()[1]}/metrics"

    def filenos(self) -> List[int]:
        """The file descriptors of which one can be read when there is something to do."""
        return [self._listener.fileno(), *(c.fileno() for c in self._connections)]

    def serve(self) -> None:
        """Answers the requests that are there."""
        with contextlib.suppress(OSError):  # nobody else is there
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._connections.append(connection)
        surplus = self._connections[:-_MOST_CONNECTIONS]
        for connection in [*self._connections]:
            if connection in surplus or self._answer(connection):
                self._connections.remove(connection)
                _close(connection)

    def _answer(self, connection: socket.socket) -> bool:
        """Returns whether the connection is finished with."""
        try:
            if connection.recv(_LONGEST_REQUEST):
                text = self._registry.text()
                head = f"HTTP/1.0 200 OK\r\nContent-Type: {self._registry.content_type}\r\n"
                head += f"Content-Length: {len(text)}\r\n\r\n"
                connection.send(head.encode() + text)  # a few KB, which the system takes at once
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        for connection in [self._listener, *self._connections]:
            _close(connection)


def _parsed(address: str) -> Tuple[str, int]:
    match = re.fullmatch(r"(?:([^:]+):)?(\d{1,5})", address)
    if match is None or int(match[2]) > 65535:
        raise SettingsError(f"--metrics must be PORT or ADDRESS:PORT, but it is {address!r}")
    return match[1] or "127.0.0.1", int(match[2])


def _close(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # a worker may have a copy of its descriptor
    connection.close()
