"""
A Ray cluster of several nodes on this machine, in a process of its own: nothing of Ray shall be in
the process of the tests, which forks. Its nodes are those of Ray's own tests.
"""

import json
import os
import subprocess
import sys
from typing import Any, Dict, List

import psutil

_NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


class Nodes:
    """A head and two more nodes with one CPU each, until `close`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ray_nodes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "RAY_DISABLE_IMPORT_WARNING": "1", "RAY_USAGE_STATS_ENABLED": "0"},
            universal_newlines=True,
        )
        self.address: str = self._ask("start")

    def add(self) -> None:
        self._ask("add")

    def kill_one(self, but: str) -> None:
        """Kills a node, but not the one with this socket."""
        self._ask(f"kill {but}")

    def _ask(self, command: str) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    @property
    def pids(self) -> List[int]:
        """All processes that belong to it."""
        process = psutil.Process(self._process.pid)
        return [process.pid, *(child.pid for child in process.children(recursive=True))]

    def actors(self) -> Dict[int, int]:
        """The processes of actors, each with its node's process."""
        found = {}
        for pid in self.pids:
            try:
                process = psutil.Process(pid)
                if "RayWorker" in "".join(process.cmdline()):
                    found[pid] = process.ppid()
            except psutil.Error:
                pass
        return found

    def close(self) -> None:
        processes = [psutil.Process(pid) for pid in self.pids]
        self._process.communicate(timeout=30)
        _, alive = psutil.wait_procs(processes, timeout=10)
        for process in alive:
            process.kill()
        assert alive == []


def serve() -> None:
    from ray.cluster_utils import Cluster

    answers = os.fdopen(os.dup(1), "w", 1)
    os.dup2(2, 1)  # Ray prints
    cluster: Any = None
    for command in sys.stdin:
        answer = None
        if command == "start\n":
            cluster = Cluster(initialize_head=True, head_node_args=_NODE)
            for _ in range(2):
                cluster.add_node(**_NODE)
            answer = cluster.address
        elif command == "add\n":
            cluster.add_node(**_NODE)
        else:
            spared = command.split()[1]
            node = next(n for n in cluster.worker_nodes if n.raylet_socket_name != spared)
            node.all_processes["raylet"][0].process.kill()
        print(json.dumps(answer), file=answers)
    cluster.shutdown()


if __name__ == "__main__":
    serve()
