"""How a file is recognised."""

import copy
import http.server
import threading

import pytest

from allennlp_parallel_predict.pipeline.fingerprint import fingerprint, is_same

pytestmark = pytest.mark.timeout(60)


class Server(http.server.ThreadingHTTPServer):
    """Serves one file, and counts the requests."""

    requests = 0


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.server.requests += 1
        self.send_response(200)
        self.send_header("ETag", "one")
        self.send_header("Content-Length", "5")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(b"input")

    def log_message(self, *args: object) -> None:
        pass


def test_a_url_is_asked_for_once() -> None:
    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/input"
            known = fingerprint(url)
            before = server.requests
            assert before > 0 and known[""]["size"] == 5
            assert is_same(copy.deepcopy(known), known, url)
            assert server.requests == before
        finally:
            server.shutdown()
