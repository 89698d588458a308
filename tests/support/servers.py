"""The example of a service, really started, and requests to it."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any, Dict, List, Tuple

import psutil

from tests.support.pools import ARCHIVE, ROOT

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
    """`examples/serve.py` in a process of its own, which answers when this is made."""

    def __init__(self, *flags: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-W", "ignore", str(ROOT / "examples" / "serve.py")]
        command += [str(ARCHIVE), "--port", str(self.port), "--num-workers", "2", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        assert self.process.stderr is not None
        self._stderr = self.process.stderr
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self._stderr.read().decode()[-3000:]
            with contextlib.suppress(OSError):
                assert self.call("/health") == (200, {"workers": 2})
                return
            time.sleep(0.1)
        raise TimeoutError("the server does not start")

    def call(self, path: str, content: Any = None) -> Tuple[int, Any]:
        is_ready = content is None or isinstance(content, bytes)
        body = content if is_ready else json.dumps(content).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", body)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def metrics(self) -> Dict[str, float]:
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        values = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in values}

    def load(self, threads: int, requests: int) -> "subprocess.Popen[bytes]":
        """Requests of a process of its own; `answers` waits for them."""
        command = [sys.executable, "-c", LOAD, *map(str, (self.port, threads, requests))]
        return subprocess.Popen(command, stdout=subprocess.PIPE)

    def workers(self) -> List[psutil.Process]:
        return list(psutil.Process(self.process.pid).children())

    def kill_workers(self) -> int:
        """Returns how many there were."""
        workers = self.workers()
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        return len(workers)

    def seconds_to_health(self) -> float:
        start = time.monotonic()
        assert self.call("/health")[0] in (200, 503)  # no worker, while both are replaced
        return time.monotonic() - start

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)
        self._stderr.close()


def answers(load: "subprocess.Popen[bytes]", timeout: float = 60.0) -> List[Tuple[int, float]]:
    """The status and the seconds of each request."""
    output, _ = load.communicate(timeout=timeout)
    assert load.returncode == 0
    return [(status, seconds) for status, seconds in json.loads(output)]
