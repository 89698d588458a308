"""The example of a service, really started, with real requests."""

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.support.pools import faulty_async
from tests.support.running import leftover_children

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytestmark = pytest.mark.timeout(90)

ROOT = Path(__file__).parent.parent.parent
from examples import serve  # noqa: E402

ARCHIVE = ROOT / "examples" / "g2p" / "model.tar.gz"

# Requests from another process, so that they do not wait for each other in this one: many at once,
# each thread on a connection of its own. Prints [status, seconds] of each.
LOAD = """
import http.client, json, sys, threading, time
port, threads, requests = map(int, sys.argv[1:])
results = []
def call(number):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for request in range(requests):
        start = time.monotonic()
        body = json.dumps({"source": "load" + "abcdefghij"[request % 10] * (1 + number % 9)})
        connection.request("POST", "/predict", body)
        answer = connection.getresponse()
        output = json.loads(answer.read())
        assert answer.status != 200 or output["predicted_tokens"]
        results.append([answer.status, time.monotonic() - start])
all_threads = [threading.Thread(target=call, args=[number]) for number in range(threads)]
for thread in all_threads: thread.start()
for thread in all_threads: thread.join()
print(json.dumps(results))
"""


class Server:
    def __init__(self, *flags):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-W", "ignore", str(ROOT / "examples" / "serve.py")]
        command += [str(ARCHIVE), "--port", str(self.port), "--num-workers", "2", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.process.stderr.read().decode()[-3000:]
            with contextlib.suppress(OSError):
                assert self.call("/health") == (200, {"workers": 2})
                return
            time.sleep(0.1)
        raise TimeoutError("the server does not start")

    def call(self, path, content=None):
        body = (
            content if content is None or type(content) is bytes else json.dumps(content).encode()
        )
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def metrics(self):
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def load(self, threads, requests):
        command = [sys.executable, "-c", LOAD, *map(str, (self.port, threads, requests))]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    def workers(self):
        return psutil.Process(self.process.pid).children()

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self.process.stderr.close()


@pytest.fixture(scope="module")
def server():
    server = Server("--max-waiting", "40", "--max-body", "10000")
    yield server
    server.close()
    assert leftover_children() == []


@pytest.fixture(autouse=True)
def no_process_left_behind(server):
    """In place of the one for every test: here, the server stays until the last."""
    yield


def answers(load):
    output, _ = load.communicate(timeout=60)
    assert load.returncode == 0
    return json.loads(output)


def test_predictions(server):
    status, output = server.call("/predict", {"source": "hello"})
    assert status == 200 and output["predicted_tokens"][0][0] == "HH"
    status, outputs = server.call("/predict/batch", [{"source": "hello"}, {"wrong": 1}])
    assert status == 200 and outputs[0]["predicted_tokens"] == output["predicted_tokens"]
    assert outputs[1] == {"error": "KeyError: 'source'"}
    assert server.call("/predict/batch", []) == (200, [])


@pytest.mark.parametrize(
    "path, content, status, message",
    [
        ("/predict", b"{", 400, "the body is not JSON"),
        ("/predict", b"\xff\xfe\x00", 400, "the body is not JSON"),
        ("/predict", [1], 400, "must be a JSON object"),
        ("/predict/batch", {"source": "x"}, 400, "must be a JSON list"),
        ("/predict/batch", [{"source": "x"}, 3], 400, "must be a JSON list"),
        ("/predict", {"word": "x"}, 422, "cannot take this input: KeyError: 'source'"),
        ("/predict", {"source": "x" * 20000}, 413, "more than 10000 bytes"),
        pytest.param("/predict", b"[" * 9999, 400, "nested too deeply", id="nested"),
    ],
)
def test_bad_requests(server, path, content, status, message):
    answer_status, answer = server.call(path, content)
    assert (answer_status, message in answer["error"]) == (status, True)


def test_a_load_is_predicted_in_batches_and_counted(server):
    before = server.metrics()
    done = answers(server.load(threads=24, requests=10))
    assert [status for status, _ in done] == [200] * 240
    after = server.metrics()
    assert after["predict_inputs_total"] - before["predict_inputs_total"] == 240
    sizes = {name: n for name, n in after.items() if name.startswith("predict_batches_total")}
    assert max(int(name.split('"')[1]) for name in sizes) > 4
    assert after["predict_queue_length"] == 0 and after["predict_workers"] == 2
    assert 0 < after['predict_latency_seconds{quantile="0.50"}'] < 10


def test_killed_workers_are_replaced_without_a_failed_request(server):
    load = server.load(threads=16, requests=60)
    killed = set()
    while len(killed) < 3:
        time.sleep(0.3)
        alive = [worker for worker in server.workers() if worker.status() != "zombie"]
        killed.add(alive[0].pid)
        alive[0].kill()
    assert load.poll() is None
    assert {status for status, _ in answers(load)} == {200}
    assert server.metrics()["predict_worker_restarts_total"] == 3
    assert server.call("/health") == (200, {"workers": 2})


def test_too_many_requests(server):
    for worker in server.workers():
        worker.suspend()
    try:
        load = server.load(threads=150, requests=1)
        time.sleep(2)
        status, answer = server.call("/predict", {"source": "late"})
        assert status == 429 and "try again later" in answer["error"]
        assert server.metrics()["predict_queue_length"] == 40
        assert server.call("/health")[0] == 200
    finally:
        for worker in server.workers():
            worker.resume()
    statuses = [status for status, _ in answers(load)]
    # Those that waited, and those that the two stopped workers had.
    assert set(statuses) == {200, 429} and 40 <= statuses.count(200) <= 40 + 2 * 32
    assert server.call("/predict", {"source": "again"})[0] == 200


def test_a_prediction_that_takes_too_long():
    server = Server("--timeout", "1")
    try:
        assert server.call("/predict", {"source": "first"})[0] == 200
        for worker in server.workers():
            worker.suspend()
        status, answer = server.call("/predict/batch", [{"source": "x"}])
        assert status == 504 and "takes too long" in answer["error"]
        statuses = [504]
        deadline = time.monotonic() + 30
        while statuses[-1] != 200 and time.monotonic() < deadline:
            statuses.append(server.call("/predict", {"source": "again"})[0])
        # Workers that hang are replaced, so that it is not only the request that ends.
        assert set(statuses) == {504, 200}
    finally:
        server.close()


def test_what_no_request_can_bring_about():
    """Predictors that fail in other ways; and requests after the predictor's end, which reach the
    app only in the moment between that and the end of the connections."""

    async def call(app, path, body=b""):
        sent = []

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            sent.append(message)

        method = "POST" if body else "GET"
        scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
        await app(scope, receive, send)
        return sent[0]["status"], json.loads(sent[1]["body"])

    async def test():
        predictor = faulty_async()
        app = serve.Service(predictor, 1000, 10.0, 4).app()
        await predictor.start()
        assert await call(app, "/health") == (200, {"workers": 2})
        assert (await call(app, "/predict", b'{"n": 1}'))[0] == 200
        for do, status in (("raise", 422), ("leave", 422), ("memory", 500), ("kill", 500)):
            body = json.dumps({"n": 1, "do": do}).encode()
            assert (await call(app, "/predict", body))[0] == status
            answer_status, (answer,) = await call(app, "/predict/batch", b"[" + body + b"]")
            assert answer_status == 200 and "error" in answer
        await predictor.close()
        assert await call(app, "/health") == (503, {"workers": 0})
        for path, body in (("/predict", b'{"n": 1}'), ("/predict/batch", b'[{"n": 1}]')):
            assert await call(app, path, body) == (503, {"error": "the server is being shut down"})

    asyncio.run(test())


def test_it_finishes_what_is_under_way_when_it_is_told_to_end(server):
    for worker in server.workers():
        worker.suspend()
    load = server.load(threads=10, requests=1)
    time.sleep(1)
    workers = server.workers()
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    for worker in workers:
        worker.resume()
    assert {status for status, _ in answers(load)} == {200}
    assert server.process.wait(20) in (0, -signal.SIGTERM)
    assert not any(worker.is_running() for worker in workers)
