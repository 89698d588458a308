"""The metrics over HTTP, to clients of all kinds, without a thread of the server's."""

import select
import socket
import threading
import urllib.request
from contextlib import closing

import pytest

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.metrics import MetricsRegistry
from allennlp_parallel_predict.common.metrics_server import MetricsServer
from tests.common.metrics_test import metrics

pytest.importorskip("prometheus_client")
pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def server():
    with closing(MetricsServer(MetricsRegistry(metrics), "0")) as server:
        yield server


def connect(server):
    return socket.create_connection(("127.0.0.1", int(server.url.split(":")[2].split("/")[0])))


def serve_until(server, condition):
    while not condition():
        if select.select(server.filenos(), [], [], 0.1)[0]:
            server.serve()


def test_a_client_gets_them(server):
    answers = []

    def ask():
        with urllib.request.urlopen(server.url, timeout=20) as answer:
            answers.append((answer.headers["Content-Type"], answer.read()))

    client = threading.Thread(target=ask)
    client.start()
    serve_until(server, lambda: not client.is_alive())
    ((content_type, text),) = answers
    assert content_type.startswith("text/plain")
    assert b"parallel_predict_lines_total 7.0" in text


def test_nobody_is_waited_for(server):
    with connect(server) as silent, connect(server) as gone:
        server.serve()
        gone.close()
        server.serve()
        assert len(server.filenos()) in (2, 3)  # without the one that is gone, sooner or later
        silent.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
        serve_until(server, lambda: len(server.filenos()) == 1)
        assert b"lines_total 7.0" in b"".join(iter(lambda: silent.recv(4096), b""))


def test_silent_clients_cannot_pile_up(server):
    clients = [connect(server) for _ in range(40)]
    serve_until(server, lambda: select.select(clients[:1], [], [], 0)[0])
    assert clients[0].recv(1) == b""
    assert len(server.filenos()) <= 17
    for client in clients:
        client.close()


@pytest.mark.parametrize("address", ["", "x", "-1", "65536", "localhost", "127.0.0.1:", ":9100"])
def test_what_is_no_address(address):
    with pytest.raises(SettingsError, match="must be PORT or ADDRESS:PORT"):
        MetricsServer(MetricsRegistry(metrics), address)


def test_a_port_in_use(server):
    port = server.url.split(":")[2].split("/")[0]
    with pytest.raises(SettingsError, match=f"cannot serve metrics on 127.0.0.1:{port}: .*in use"):
        MetricsServer(MetricsRegistry(metrics), port)
