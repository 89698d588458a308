"""Ctrl-C, SIGTERM and SIGKILL of the command, at every stage of a run."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import psutil
import pytest

from tests.support.faults import command, faulty_archive, numbered, settings, wait_until

pytestmark = pytest.mark.timeout(150)


@pytest.fixture(scope="module")
def slow_archive(tmp_path_factory):
    return faulty_archive(tmp_path_factory.mktemp("archive"), loading_fault="sleep")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder for the run, and a temporary folder of its own that must be empty at the end."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    shared_memory = set(os.listdir("/dev/shm"))
    yield tmp_path
    assert os.listdir(tmp_path / "tmp") == []
    assert set(os.listdir("/dev/shm")) <= shared_memory


def slow_lines(folder, count=2000, seconds=0.02):
    path = folder / "input"
    lines = [{"n": n, "do": "sleep", "seconds": seconds} for n in range(count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def has_output(folder, lines=20):
    path = folder / "output"
    return path.exists() and path.read_bytes().count(b"\n") >= lines


def status_of(process):
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return None


def is_stopped(process):
    return status_of(process) == psutil.STATUS_STOPPED


def lives(process):
    """Whoever adopts the workers of a killed parent may take its time to reap them."""
    return status_of(process) not in (None, psutil.STATUS_ZOMBIE)


STOPS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


def flags(folder, start_method="fork", **more):
    return [
        *("--output-file", folder / "output", "--silent", "--num-workers", 2),
        *settings(executor_start_method=start_method, checkpoint_interval=0.1, **more),
    ]


class TestOnce:
    @pytest.mark.parametrize(
        "number, status, start_method",
        [
            (signal.SIGINT, 130, "fork"),
            (signal.SIGTERM, 143, "fork"),
            (signal.SIGINT, 130, "spawn"),
        ],
    )
    def test_while_it_predicts(self, archive, place, number, status, start_method):
        run = flags(place, start_method)
        with command(archive, slow_lines(place), *run, folder=place) as running:
            wait_until(lambda: has_output(place), 110)
            workers = running.workers()
            assert len(workers) == 2
            # A terminal sends it to all of the group.
            os.killpg(running.pid, number) if number == signal.SIGINT else running.signal(number)
            started = time.monotonic()
            assert running.wait(5) == status
            assert time.monotonic() - started < 3
            assert not any(map(lives, workers))
        written = json.loads((place / "output.checkpoint").read_text())["content"]["written"]
        assert (place / "output").stat().st_size == written["output_bytes"]
        assert f"after input line {written['lines']:,};" in running.stderr
        assert "same command with --resume" in running.stderr
        assert "Traceback" not in running.stderr

    @pytest.mark.parametrize("module", ["allennlp", "slow_plugin"])
    def test_while_it_imports(self, tmp_path, module):
        """AllenNLP, which takes seconds, or a plugin: here, one that never ends."""
        (tmp_path / ".allennlp_plugins").write_text("slow_plugin\n")
        started = tmp_path / "started"
        code = f"import time\nopen({str(started)!r}, 'w').close()\ntime.sleep(100)\n"
        (tmp_path / f"{module}.py").write_text(code)
        run = [sys.executable, "-m", "allennlp_parallel_predict", "parallel-predict", "a", "b"]
        listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # what `&` ignores
        with subprocess.Popen(
            run, cwd=tmp_path, stderr=subprocess.PIPE, preexec_fn=listen
        ) as process:
            wait_until(started.exists, 60)
            process.send_signal(signal.SIGINT)
            stderr = process.communicate(timeout=30)[1].decode()
        assert process.returncode == 130
        assert stderr.splitlines()[-1] == "parallel-predict: interrupted"
        assert "Traceback" not in stderr

    @pytest.mark.parametrize("number, status", STOPS)
    def test_when_all_is_written(self, archive, place, number, status):
        """The summary waits for a reader."""
        os.mkfifo(place / "summary")
        (place / "input").write_text('{"n": 0}\n')
        run = [*flags(place), "--summary", place / "summary"]
        with command(archive, place / "input", *run, folder=place) as running:
            is_there = (place / "stderr").exists
            wait_until(lambda: is_there() and "1 lines in" in running.stderr)
            wait_until(lambda: not running.workers())
            time.sleep(0.3)
            running.signal(number)
            assert running.wait(5) == status
        assert running.stderr.splitlines()[-1] == "parallel-predict: interrupted"
        assert "Traceback" not in running.stderr

    @pytest.mark.parametrize("number, status", STOPS)
    def test_while_the_model_is_loaded(self, slow_archive, place, number, status):
        with command(slow_archive, slow_lines(place), *flags(place), folder=place) as running:
            wait_until(lambda: os.listdir(place / "tmp"))
            time.sleep(0.3)
            running.signal(number)
            started = time.monotonic()
            assert running.wait(5) == status
            assert time.monotonic() - started < 3
        assert "interrupted" in running.stderr and "Traceback" not in running.stderr

    def test_while_spawned_workers_start(self, archive, place):
        run = flags(place, "spawn")
        with command(archive, slow_lines(place), *run, folder=place) as running:
            workers = wait_until(lambda: len(running.workers()) == 2 and running.workers())
            time.sleep(0.5)
            os.killpg(running.pid, signal.SIGINT)
            started = time.monotonic()
            assert running.wait(5) == 130
            assert time.monotonic() - started < 3
            assert not any(map(lives, workers))
        assert "Traceback" not in running.stderr

    @pytest.mark.parametrize("number, status", STOPS)
    @pytest.mark.parametrize("executor", ["process_pool", "in_process"])
    def test_while_it_reads_a_silent_pipe(self, archive, place, number, status, executor):
        end, other_end = os.pipe()
        os.write(other_end, b'{"n": 0}\n{"n": 1}\n')
        run = ["--output-file", place / "output", "--silent", *settings(executor_type=executor)]
        with command(archive, "-", *run, folder=place, stdin=end) as running:
            wait_until(lambda: has_output(place, 2))
            running.signal(number)
            assert running.wait(3) == status
        os.close(end), os.close(other_end)
        assert "after input line 2" in running.stderr and "--resume" not in running.stderr

    def test_with_a_worker_that_cannot_be_ended_kindly(self, archive, place):
        path = slow_lines(place)
        path.write_text(path.read_text() + '{"n": 5, "do": "hang"}\n')
        path.write_text('{"n": 0, "do": "hang"}\n{"n": 1, "do": "stop"}\n' + path.read_text())
        with command(archive, path, *flags(place), folder=place) as running:
            workers = wait_until(lambda: len(running.workers()) == 2 and running.workers())
            wait_until(lambda: any(map(is_stopped, workers)))
            time.sleep(0.2)
            running.signal(signal.SIGINT)
            assert running.wait(3) == 130
            assert not any(map(lives, workers))

    def test_not_in_the_middle_of_a_write(self, archive, place):
        """Each of many interrupted runs leaves a checkpoint that fits the output."""
        lines = numbered(100_000, {n: {"pad": 20_000} for n in range(0, 100_000, 3)})
        path = place / "input"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for attempt in range(4):
            with command(archive, path, *flags(place), folder=place) as running:
                wait_until(lambda: has_output(place))
                time.sleep(0.03 * attempt)
                running.signal(signal.SIGINT)
                assert running.wait(5) == 130
            written = json.loads((place / "output.checkpoint").read_text())["content"]["written"]
            assert (place / "output").stat().st_size == written["output_bytes"]
            os.remove(place / "output")


class TestTwice:
    def test_at_once(self, archive, place):
        path = slow_lines(place)
        path.write_text('{"n": 0, "do": "hang"}\n' * 2 + path.read_text())
        with command(archive, path, *flags(place), folder=place) as running:
            workers = wait_until(lambda: len(running.workers()) == 2 and running.workers())
            time.sleep(0.3)
            running.signal(signal.SIGINT)
            time.sleep(0.05)
            running.signal(signal.SIGINT)
            started = time.monotonic()
            assert running.wait(5) == 130
            assert time.monotonic() - started < 0.4
            wait_until(lambda: not any(map(lives, workers)), 2)


class TestTheParentIsKilled:
    def ends(self, running, seconds=2.0):
        """Every process is gone in time, in whatever it was."""
        workers = running.workers()
        running.signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        wait_until(lambda: not any(map(lives, workers)), seconds)
        return workers

    def test_while_it_predicts(self, archive, place):
        with command(archive, slow_lines(place), *flags(place), folder=place) as running:
            wait_until(lambda: has_output(place))
            assert len(self.ends(running)) == 2

    def test_while_a_worker_is_stopped_and_another_hangs(self, archive, place):
        path = place / "input"
        path.write_text('{"n": 0, "do": "hang"}\n{"n": 1, "do": "stop"}\n')
        with command(archive, path, *flags(place), folder=place) as running:
            wait_until(lambda: any(map(is_stopped, running.workers())))
            assert len(self.ends(running)) == 2

    def test_while_the_model_is_loaded(self, slow_archive, place):
        with command(slow_archive, slow_lines(place), *flags(place), folder=place) as running:
            wait_until(lambda: os.listdir(place / "tmp"))
            time.sleep(0.2)
            self.ends(running)
            wait_until(lambda: not os.listdir(place / "tmp"), 2)

    @pytest.mark.parametrize("seconds", [0.0, 1.0])
    def test_while_spawned_workers_start(self, archive, place, seconds):
        run = flags(place, "spawn")
        with command(archive, slow_lines(place), *run, folder=place) as running:
            wait_until(lambda: len(running.workers()) == 2)
            time.sleep(seconds)
            assert len(self.ends(running)) == 2

    def test_while_spawned_workers_predict(self, archive, place):
        run = flags(place, "spawn")
        with command(archive, slow_lines(place), *run, folder=place) as running:
            wait_until(lambda: has_output(place), 110)
            assert len(self.ends(running)) == 2
