"""The example of a service, really started, with real requests."""

import asyncio
import contextlib
import json
import signal
import socket
import time
import types
import urllib.request

import psutil
import pytest

from tests.support.faults import wait_until
from tests.support.pools import faulty_async
from tests.support.running import leftover_children, workers
from tests.support.servers import Server, answers

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")
pytestmark = pytest.mark.timeout(90)

from examples import serve  # noqa: E402


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
    done = {name: after[name] - before.get(name, 0) for name in after}
    assert done["parallel_predict_lines_total"] == 240
    assert done["parallel_predict_batch_inputs_sum"] == 240
    batches = done["parallel_predict_batch_inputs_count"]
    assert done['parallel_predict_batch_inputs_bucket{le="4.0"}'] < batches < 240
    assert done["parallel_predict_batch_seconds_count"] == batches
    assert done["parallel_predict_request_seconds_count"] == 240
    assert 0 < done["parallel_predict_request_seconds_sum"] < 240 * 10
    assert after["parallel_predict_queue_inputs"] == 0 and after["parallel_predict_workers"] == 2


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
    assert server.metrics()["parallel_predict_restarts_total"] == 3
    assert server.call("/health") == (200, {"workers": 2})


def test_no_request_fails_however_often_workers_are_killed(server):
    load = server.load(threads=16, requests=40)
    kills = 0
    while load.poll() is None and kills <= 60:
        kills += server.kill_workers()
        time.sleep(0.1)
    assert [status for status, _ in answers(load)] == [200] * 640
    assert kills > 10


def test_too_many_requests(server):
    for worker in server.workers():
        worker.suspend()
    try:
        load = server.load(threads=150, requests=1)
        time.sleep(2)
        status, answer = server.call("/predict", {"source": "late"})
        assert status == 429 and "try again later" in answer["error"]
        assert server.metrics()["parallel_predict_queue_inputs"] == 40
        assert server.call("/health")[0] == 200
    finally:
        for worker in server.workers():
            worker.resume()
    statuses = [status for status, _ in answers(load)]
    # Those that waited, and those that the two stopped workers had.
    assert set(statuses) == {200, 429} and 40 <= statuses.count(200) <= 40 + 2 * 32
    assert server.call("/predict", {"source": "again"})[0] == 200


def test_metrics_have_types_and_help(server):
    url = f"http://127.0.0.1:{server.port}/metrics"
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    parser = pytest.importorskip("prometheus_client.parser")
    families = {f.name: f for f in parser.text_string_to_metric_families(text)}
    assert {name: family.type for name, family in families.items()} == {
        "parallel_predict_lines": "counter",
        "parallel_predict_failures": "counter",
        "parallel_predict_restarts": "counter",
        "parallel_predict_workers": "gauge",
        "parallel_predict_queue_inputs": "gauge",
        "parallel_predict_batch_seconds": "histogram",
        "parallel_predict_batch_inputs": "histogram",
        "parallel_predict_request_seconds": "histogram",
    }
    assert all(family.documentation for family in families.values())


@pytest.fixture(scope="module")
def impatient():
    server = Server("--io-timeout", "1", "--max-body", str(1 << 22))
    yield server
    server.close()


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"


@pytest.mark.parametrize(
    "sent, answer",
    [
        pytest.param(b"", b"", id="nothing"),
        pytest.param(HEAD, b"", id="half a head"),
        pytest.param(HEAD + b"\r\n{", b"HTTP/1.1 408", id="half a body"),
        pytest.param(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\nGET", b"HTTP/1.1 200", id="a second"),
    ],
)
def test_half_open_connections_are_closed(impatient, sent, answer):
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=30) as client:
        client.sendall(sent)
        received = b""
        with contextlib.suppress(ConnectionResetError):
            while True:
                part = client.recv(4096)  # until the server closes the connection
                if not part:
                    break
                received += part
        assert received.startswith(answer) and bool(received) == bool(answer)


def test_a_client_that_sends_byte_by_byte_is_disconnected(impatient):
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=30) as client:
        with pytest.raises(OSError):
            for _ in range(300):
                client.sendall(b"x")
                time.sleep(0.1)


def test_a_client_that_reads_nothing_is_disconnected(impatient):
    with socket.create_connection(("127.0.0.1", impatient.port), timeout=30) as client:
        client.setblocking(False)
        address, requests = (
            client.getsockname()[1],
            b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 999,
        )
        with pytest.raises(BlockingIOError):
            for _ in range(100_000):
                client.send(requests)
        wait_until(lambda: address not in clients_of(impatient))
    assert impatient.call("/health")[0] == 200


def clients_of(server):
    connections = psutil.Process(server.process.pid).connections("tcp")
    return {connection.raddr.port for connection in connections if connection.raddr}


def test_health_is_told_whatever_clients_do(impatient):
    """Within a second on a quiet machine; `tests/endurance/service.py` measures it."""
    seconds = []

    def done():
        return impatient.metrics()["parallel_predict_lines_total"]

    with contextlib.ExitStack() as stack:
        for number in range(300):
            client = socket.create_connection(("127.0.0.1", impatient.port), timeout=30)
            stack.enter_context(client)
            client.sendall(HEAD[: number % len(HEAD)])
        seconds.append(impatient.seconds_to_health())
        load = impatient.load(threads=8, requests=20)
        while load.poll() is None:
            before = done()
            status, answer = impatient.call("/predict/batch", [{}] * 340_000)
            assert status == 413 and "340000 inputs; at most 1000" in answer["error"]
            impatient.kill_workers()
            seconds.append(impatient.seconds_to_health())
            # On a busy machine too, some work is done between two kills: else no number of tries
            # would be enough.
            wait_until(lambda: load.poll() is not None or done() > before)
        assert {status for status, _ in answers(load)} == {200}
        wait_until(lambda: not clients_of(impatient))
    print(f"/health in at most {max(seconds):.3f} s")
    assert max(seconds) < 10


def test_the_event_loop_has_its_turn_while_a_long_answer_is_written(monkeypatch):
    """300 outputs of 100 KB: written at once, they would keep `/health` waiting."""
    written, at_once = [], []

    def dumps(value):
        written.append(json.dumps(value))
        return written[-1]

    async def test():
        predictor = faulty_async()
        app = serve.Service(predictor, 1 << 20, 60.0, 4).app()
        await predictor.start()
        inputs = [{"n": n, "pad": 100_000} for n in range(300)]
        messages, sent = [{"type": "http.request", "body": json.dumps(inputs).encode()}], []

        async def receive():
            return messages.pop() if messages else await asyncio.Event().wait()

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict/batch", "headers": []}
        call = asyncio.ensure_future(app({**scope, "query_string": b""}, receive, send))
        while not call.done():
            await asyncio.sleep(0)
            at_once.append(sum(map(len, written)))
            written.clear()
        assert sent[0]["status"] == 200 and len(json.loads(sent[1]["body"])) == 300
        await predictor.close()

    monkeypatch.setattr(serve, "json", types.SimpleNamespace(dumps=dumps, loads=json.loads))
    asyncio.run(test())
    assert sum(at_once) > 30_000_000 and max(at_once) < 1_000_000


def test_the_prediction_of_a_client_that_is_gone_is_given_up():
    async def test():
        others = workers()  # the servers of other tests
        predictor = faulty_async(num_workers=1)
        app = serve.Service(predictor, 1000, 60.0, 4).app()
        await predictor.start()
        gone, sent = asyncio.Event(), []
        messages = [{"type": "http.request", "body": b'{"n": 1, "do": "hang"}'}]

        async def receive():
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": []}
        call = asyncio.ensure_future(app({**scope, "query_string": b""}, receive, send))
        while not predictor.statistics().in_work:
            await asyncio.sleep(0.01)
        gone.set()
        await call
        assert sent[0]["status"] == 499
        await asyncio.sleep(0.2)
        (worker,) = set(workers()) - set(others)
        worker.kill()  # its batch is not tried again, so the next one gets its turn
        assert (await predictor.predict_json({"n": 2}, timeout=30))["n"] == 2
        assert predictor.statistics().restarts == 1
        await predictor.close()

    asyncio.run(test())


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
