"""
The service under attack: all its workers killed again and again under a load, beside half-open
connections, clients that read nothing, and bodies of hundreds of thousands of inputs:

    python -m tests.endurance.service --seconds 45

Fails if a request fails, or if `/health` takes longer than a second.
"""

import argparse
import contextlib
import random
import socket
import sys
import threading
import time
from typing import List

from tests.support.servers import Server, answers

HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
PROMISED = 1.0
"""Seconds for `/health`."""


def attack(server: Server, until: float) -> None:
    """Connections that never send a whole request or read an answer, and bodies that are huge."""
    while time.monotonic() < until:
        with contextlib.ExitStack() as stack:
            for number in range(100):
                address = ("127.0.0.1", server.port)
                client = stack.enter_context(socket.create_connection(address, timeout=10))
                with contextlib.suppress(OSError):
                    client.sendall(HEAD[: number % len(HEAD)])
                    if number % 10 == 0:
                        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 99)
            status, _ = server.call("/predict/batch", [{}] * 340_000)
            assert status == 413
            time.sleep(0.5)


def run(seconds: float, kills: int, seed: int) -> int:
    rng = random.Random(seed)
    server = Server("--io-timeout", "2", "--max-body", str(1 << 22))
    until = time.monotonic() + seconds
    attacker = threading.Thread(target=attack, args=(server, until))
    attacker.start()
    statuses: List[int] = []
    health: List[float] = []
    killed = 0
    while time.monotonic() < until:
        load = server.load(threads=16, requests=12)
        while load.poll() is None:
            health.append(server.seconds_to_health())
            left = max(0.1, until - time.monotonic())
            if killed < kills:
                killed += server.kill_workers()
                time.sleep(rng.uniform(0.5, 1.5) * left * 2 / max(2, kills - killed))
            else:
                time.sleep(0.05)
        statuses += [status for status, _ in answers(load)]
    attacker.join()
    server.close()
    failed = len(statuses) - statuses.count(200)
    health.sort()
    print(
        f"{killed} kills in {seconds:.0f} s: {failed} of {len(statuses)} requests failed; /health "
        f"in {health[len(health) // 2] * 1000:.0f} ms (median of {len(health)}), at most "
        f"{health[-1] * 1000:.0f} ms"
    )
    return int(failed > 0 or health[-1] > PROMISED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--kills", type=int, default=98)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    sys.exit(run(args.seconds, args.kills, args.seed))


if __name__ == "__main__":
    main()
