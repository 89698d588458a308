"""A real Ray cluster of several nodes on this machine, and what can happen to it."""

import importlib.util
import json
import os
import signal
import socket
import sys
import time

import pytest

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.executors.ray.executor import RayExecutor
from tests.support.faults import (
    as_line,
    command,
    expected,
    faulty_archive,
    numbered,
    settings,
    wait_until,
)
from tests.support.ray_nodes import Nodes
from tests.support.running import RUNNERS

pytestmark = pytest.mark.timeout(300)


SLOW = 100.0


"""Seconds for what takes a few on a quiet machine: actors import torch and AllenNLP."""


needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")


# A predictor that lies in a folder of its own, and tells who predicted, with which copy of it.
TRAVELLER = """
import os
from allennlp.predictors import Predictor
from tests.fixtures.faulty_predictors import FaultyPredictor

@Predictor.register("traveller")
class Traveller(FaultyPredictor):
    def __init__(self, *args, trace, **kwargs):
        super().__init__(*args, **kwargs)
        self.trace = trace

    def predict_batch_json(self, inputs):
        with open(self.trace, "a") as file:
            file.write(f"{os.getpid()} {__file__}\\n")
        return super().predict_batch_json(inputs)
"""


@pytest.fixture(scope="module")
def nodes():
    nodes = RUNNERS["ray"] = Nodes()
    yield nodes
    del RUNNERS["ray"]
    nodes.close()


class Place:
    """A folder with an archive, and runs of the command in it."""

    def __init__(self, folder, nodes, monkeypatch):
        self.folder, self.nodes = folder, nodes
        self.archive = faulty_archive(folder)
        self.trace, self.lines, self.output = folder / "trace", folder / "lines", folder / "out"
        self.socket = folder / "socket"
        self.feed = None
        (folder / "code").mkdir()
        (folder / "code" / "traveller.py").write_text(TRAVELLER)
        monkeypatch.syspath_prepend(folder / "code")
        monkeypatch.setattr(RayExecutor, "start", self.started(RayExecutor.start))

    def started(self, start):
        def start_and_tell(*args):
            start(*args)
            if self.feed is not None:
                os.close(self.feed.pipe)  # inherited by the fork
            from ray._private.worker import global_worker

            self.socket.write_text(global_worker.node.raylet_socket_name)

        return start_and_tell

    def command(self, inputs, *flags, **more):
        """The command, with the settings `more`, on the cluster unless they say otherwise."""
        source = "-"
        if isinstance(inputs, list):
            text = "".join(map(as_line, inputs))
            if not self.lines.exists() or self.lines.read_text() != text:
                self.lines.write_text(text)
            source, stdin = self.lines, None
        else:
            stdin = inputs
        if "executor_type" not in more:
            more = {"executor_type": "ray", "executor_address": self.nodes.address, **more}
        flags = [*flags, "--include-package", "traveller", "--predictor", "traveller"]
        flags += ["--predictor-args", json.dumps({"trace": str(self.trace)})]
        flags += ["--output-file", self.output, *settings(**{"batching_batch_size": 4, **more})]
        return command(self.archive, source, *flags, folder=self.folder, stdin=stdin)

    def run(self, inputs, *flags, **more):
        with self.command(inputs, *flags, **more) as ran:
            ran.wait(SLOW)
        return ran

    def predicted_by(self):
        """How many batches each process predicted."""
        if not self.trace.exists():
            return {}
        pids = [line.split()[0] for line in self.trace.read_text().splitlines()]
        return {int(pid): pids.count(pid) for pid in pids}


@pytest.fixture
def place(tmp_path, nodes, monkeypatch):
    return Place(tmp_path, nodes, monkeypatch)


@needs_ray
class TestACluster:
    def test_its_output_is_that_of_one_process(self, place):
        inputs = numbered(90, {n: {"do": "sleep", "seconds": 0.3} for n in range(0, 90, 4)})
        ran = place.run(inputs, executor_num_workers=3)
        assert ran.status == 0, ran.stderr
        assert "90 lines" in ran.stderr and "3 workers (Ray, 3 nodes" in ran.stderr
        copies = {line.split()[1] for line in place.trace.read_text().splitlines()}
        assert len(place.predicted_by()) == 3
        assert str(place.folder) not in " ".join(copies)  # it travelled
        output, stdout = place.output.read_text(), ran.stdout
        assert place.run(inputs, executor_type="in_process").status == 0
        assert (output, stdout) == (place.output.read_text(), ran.stdout)

    def test_only_the_inputs_that_kill_or_fail_are_lost(self, place):
        once = str(place.folder / "once")
        faults = {9: "hang", 17: "raise", 26: {"do": "kill", "once": once}}
        flags = ["--on-error", "skip", "--errors-file", place.folder / "errors", "--silent"]
        more = {"executor_num_workers": 3, "executor_batch_timeout": 4, "executor_max_retries": 0}
        ran = place.run(numbered(40, faults), *flags, **more)
        assert ran.status == 3, ran.stderr
        assert place.output.read_text() == expected(n for n in range(40) if n not in (9, 17))
        errors = [json.loads(line) for line in (place.folder / "errors").read_text().splitlines()]
        kinds = [(error["line"], error["type"].rpartition(".")[2]) for error in errors]
        assert kinds == [(10, "WorkerTimeout"), (18, "ValueError")]
        assert "while it predicted input line 10" in errors[0]["message"]

    def test_a_model_with_a_memory_has_one_worker(self, place):
        place.archive = faulty_archive(place.folder, keeps_state=True)
        ran = place.run(numbered(20), "--silent", executor_num_workers=2)
        assert ran.status == 0, ran.stderr
        assert "1 worker (Ray, 1 node" in ran.stderr
        output = place.output.read_text()
        assert place.run(numbered(20), "--silent", executor_type="in_process").status == 0
        assert output == place.output.read_text()

    def test_the_driver_is_killed_and_resumed(self, place):
        once = str(place.folder / "once")
        inputs = numbered(60, {40: {"do": "sleep", "seconds": 60, "once": once}})
        more = {"executor_num_workers": 2, "checkpoint_interval": 0}
        with place.command(inputs, "--silent", **more) as ran:
            wait_until(lambda: os.path.exists(once) and place.output.stat().st_size > 100, SLOW)
            ran.signal(signal.SIGKILL)
            assert ran.wait() == -signal.SIGKILL
        before = place.output.read_text()
        assert 0 < len(before) < len(expected(range(60)))
        wait_until(lambda: not place.nodes.actors())
        ran = place.run(inputs, "--silent", "--resume", **more)
        assert ran.status == 0, ran.stderr
        assert place.output.read_text() == expected(range(60))

    def test_ctrl_c_ends_it_within_seconds(self, place):
        once = str(place.folder / "once")
        inputs = numbered(60, {20: {"do": "sleep", "seconds": 60, "once": once}})
        with place.command(inputs, "--silent", executor_num_workers=1) as ran:
            wait_until(lambda: os.path.exists(once), SLOW)
            since = time.monotonic()
            ran.signal(signal.SIGINT)
            assert ran.wait() == 130
            assert time.monotonic() - since < 10
        assert "--resume to go on" in ran.stderr
        wait_until(lambda: not place.nodes.actors())

    def test_workers_that_cannot_start(self, place):
        environment = {"env_vars": {"PYTHONHOME": "/nonexistent"}}
        more = {"executor_start_timeout": 3, "executor_runtime_env": environment}
        ran = place.run(numbered(3), **more)
        assert ran.status == 1 and "Traceback" not in ran.stderr
        assert "error: no worker for 3 s" in ran.stderr
        assert "executor.runtime_env" in ran.stderr.splitlines()[-1]

    def test_workers_that_cannot_import_the_package(self, place):
        code = "import sys; sys.modules['allennlp_parallel_predict'] = None"
        (place.folder / "sitecustomize.py").write_text(code)
        environment = {"env_vars": {"PYTHONPATH": str(place.folder)}}
        ran = place.run(numbered(3), executor_runtime_env=environment, executor_max_deaths=1)
        assert ran.status == 1 and "Traceback" not in ran.stderr.splitlines()[-1]
        assert "No module named 'allennlp_parallel_predict" in ran.stderr.splitlines()[-1]

    def test_memory_is_bounded_and_nodes_come_and_go(self, place):
        """Last, as it leaves other nodes behind."""
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        feed = place.feed = Feed(writing)
        with place.command(reading, "--silent", executor_num_workers=3) as ran:
            os.close(reading)
            feed.until(lambda: len(place.predicted_by()) == 3)
            actors = place.nodes.actors()
            assert len(set(actors.values())) == 3

            for pid in actors:
                os.kill(pid, signal.SIGSTOP)
            # 24 batches may wait for the oldest; the pipe holds 64 KB, and as much has been read.
            before = feed.sent
            feed.for_seconds(3)
            assert feed.sent - before < 1000
            for pid in actors:
                os.kill(pid, signal.SIGCONT)

            place.nodes.kill_one(but=place.socket.read_text())
            feed.until(lambda: len(place.nodes.actors()) == 2)
            place.nodes.add()
            feed.until(lambda: set(place.predicted_by()) - set(actors))
            (new,) = set(place.predicted_by()) - set(actors)
            assert place.nodes.actors()[new] not in actors.values()
            os.close(writing)
            assert ran.wait() == 0, ran.stderr
        assert "1 restarted" in ran.stderr
        assert place.output.read_text() == expected(range(feed.sent))


class Feed:
    """Writes inputs to a pipe for as long as somebody wants some."""

    def __init__(self, pipe):
        self.pipe, self.sent = pipe, 0
        self.rest = b""

    def until(self, condition, seconds=SLOW):
        wait_until(lambda: self.feed() or condition(), seconds)

    def for_seconds(self, seconds):
        until = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > until)

    def feed(self):
        # An input is written whole or not at all, as it is smaller than what a pipe writes at once.
        while True:
            line = as_line({"n": self.sent, "do": "sleep", "seconds": 0.002, "x": "y" * 2000})
            try:
                os.write(self.pipe, line.encode())
            except BlockingIOError:
                return
            self.sent += 1


@pytest.fixture
def lonely(tmp_path, monkeypatch):
    """Runs the command without a cluster."""

    def run(address, **more):
        (tmp_path / "lines").write_text(as_line({"n": 1}))
        flags = settings(executor_type="ray", executor_address=address, **more)
        since = time.monotonic()
        with command(faulty_archive(tmp_path), tmp_path / "lines", *flags, folder=tmp_path) as ran:
            assert ran.wait() == 1
        assert time.monotonic() - since < 20
        return ran.stderr

    return run


@needs_ray
@pytest.mark.parametrize("variable", [False, True])
def test_a_head_that_cannot_be_reached(lonely, monkeypatch, variable):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    message = f"error: no Ray cluster can be reached at {address}: "
    assert message in lonely("auto" if variable else address)


def test_without_ray(lonely, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "pip install 'allennlp-parallel-predict[ray]'" in lonely("auto")


@pytest.mark.parametrize(
    "wrong",
    [
        {"address": "somewhere"},
        {"address": "ray://host:10001"},
        {"num_workers": 0},
        {"num_cpus_per_worker": 0},
        {"num_gpus_per_worker": -1},
        {"batch_timeout": 0},
        {"max_retries": -1},
        {"start_timeout": 0},
    ],
)
def test_wrong_settings(wrong):
    with pytest.raises(SettingsError, match=f"executor.{next(iter(wrong))} must be"):
        RayExecutor(**wrong)
