"""A worker's end of its connection."""

import socket
import threading

import pytest

from allennlp_parallel_predict.common.serialization import SMALL, pack_header
from allennlp_parallel_predict.worker.connection import (
    is_readable,
    receive_blocking,
    send_blocking,
)


@pytest.fixture
def ends():
    mine, theirs = socket.socketpair()
    yield mine, theirs
    mine.close()
    theirs.close()


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, 3_000_000])
def test_what_is_sent_is_received(ends, size):
    message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    sender = threading.Thread(target=send_blocking, args=(ends[0], message))
    sender.start()
    assert receive_blocking(ends[1]) == message
    sender.join()


@pytest.mark.parametrize("before", [b"", b"\0", pack_header(10), pack_header(10) + b"abc"])
def test_the_end_is_none_also_in_the_middle_of_a_message(ends, before):
    ends[0].sendall(before)
    ends[0].close()
    assert receive_blocking(ends[1]) is None


def test_somebody_elses_bytes_are_an_error(ends):
    ends[0].sendall(b"hello, this is no header")
    with pytest.raises(ValueError):
        receive_blocking(ends[1])


def test_whether_something_is_there(ends):
    assert not is_readable(ends[1])
    send_blocking(ends[0], b"x")
    assert is_readable(ends[1]) and receive_blocking(ends[1]) == b"x"
    assert not is_readable(ends[1])
    ends[0].close()
    assert is_readable(ends[1])
