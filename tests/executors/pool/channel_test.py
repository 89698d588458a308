"""Messages of every size, in pieces of every size."""

import os
import socket
import threading

import pytest

from allennlp_parallel_predict.common.serialization import dumps, pack_header
from allennlp_parallel_predict.executors.pool.channel import Channel
from allennlp_parallel_predict.worker.connection import receive_blocking, send_blocking

pytestmark = pytest.mark.timeout(60)

SIZES = [0, 1, 7, 8, 65_535, 65_536, 262_144, 300_000, 5_000_000]


@pytest.fixture
def ends():
    mine, theirs = socket.socketpair()
    channel = Channel(mine)
    yield channel, theirs
    channel.close()
    theirs.close()


def receive(channel, count):
    messages = []
    while len(messages) < count:
        more, ended = channel.receive()
        messages += more
        if ended:
            break
    return messages


def test_every_size_comes(ends):
    channel, theirs = ends
    sent = [os.urandom(size) for size in SIZES]
    thread = threading.Thread(target=lambda: [send_blocking(theirs, data) for data in sent])
    thread.start()
    assert receive(channel, len(sent)) == sent
    thread.join()


def test_every_size_goes(ends):
    channel, theirs = ends
    sent, received = [os.urandom(size) for size in SIZES], []
    thread = threading.Thread(
        target=lambda: received.extend(bytes(receive_blocking(theirs)) for _ in sent)
    )
    thread.start()
    for data in sent:
        channel.send(data)
    while not channel.flush():
        pass
    thread.join()
    assert received == sent


def test_both_ways_at_once(ends):
    """With blocking writes on both sides, this would be the end."""
    channel, theirs = ends
    data = os.urandom(20_000_000)

    def answer():
        for _ in range(2):
            send_blocking(theirs, bytes(receive_blocking(theirs)))

    thread = threading.Thread(target=answer)
    thread.start()
    channel.send(data)
    channel.send(data)
    messages = []
    while len(messages) < 2:
        channel.flush()
        messages += channel.receive()[0]
    thread.join()
    assert messages == [data, data]


def test_byte_by_byte(ends):
    channel, theirs = ends
    for byte in pack_header(3) + b"abc" + pack_header(0):
        assert channel.receive() == ([], False)
        theirs.send(bytes([byte]))
        messages, _ = channel.receive()
        if messages:
            assert messages in ([b"abc"], [b""])
    assert channel.receive() == ([], False)


@pytest.mark.parametrize("garbage", [b"some text of a predictor's", b"\0" * 40])
def test_what_is_no_message_ends_it(ends, garbage):
    channel, theirs = ends
    send_blocking(theirs, b"a result")
    theirs.send(garbage)
    send_blocking(theirs, b"another")
    assert channel.receive() == ([b"a result"], True)
    assert channel.receive() == ([], True) and channel.is_garbled


def test_what_was_sent_before_the_end_is_received(ends):
    channel, theirs = ends
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 21)
    for number in range(5):
        send_blocking(theirs, bytes([number]) * 100)
    theirs.close()
    messages, ended = channel.receive(everything=True)
    assert ([m[0] for m in messages], ended) == ([0, 1, 2, 3, 4], True)


def test_the_other_end_is_gone(ends):
    channel, theirs = ends
    theirs.close()
    assert channel.send(b"x" * 100_000)
    assert channel.receive() == ([], True)


def test_finish(ends):
    channel, theirs = ends
    channel.finish()
    assert receive_blocking(theirs) is None
    send_blocking(theirs, b"still")
    assert receive(channel, 1) == [b"still"]
    channel.close()
    channel.finish()


def test_what_pickle_cannot_do():
    class Local:
        pass

    assert dumps(Local()) and dumps(lambda: 1)
