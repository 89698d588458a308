"""Ends the wait of a thread that waits for file descriptors, from any other thread."""

import socket


class WakeUp:
    """
    A socket pair: the one end can be waited for, and can be read from once the other has been
    written to.
    """

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._is_set = False

    def fileno(self) -> int:
        """What to wait for."""
        return self._receiver.fileno()

    def set(self) -> None:
        """Ends the wait, or the next one. Does nothing after `close`."""
        if self._is_set:
            return
        self._is_set = True
        try:
            self._sender.send(b"!")
        except OSError:
            pass  # nobody waits any more

    def clear(self) -> None:
        """Before looking at what there is: whoever calls `set` from here on ends the next wait."""
        try:
            self._receiver.recv(4096)
        except BlockingIOError:
            pass
        self._is_set = False  # not before: `set` in between would be read here, and be lost

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()
