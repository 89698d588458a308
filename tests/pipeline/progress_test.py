"""The bar on a terminal, the lines in a log, and nothing where nothing is wanted."""

import io
import json
import os
import pty
import select
import time
from types import SimpleNamespace

import pytest
from allennlp.common import logging as common_logging
from allennlp.common import tqdm as allennlp_tqdm

from allennlp_parallel_predict.data.sources import LineSource
from allennlp_parallel_predict.executors.base import WorkerCounts
from allennlp_parallel_predict.pipeline import progress
from allennlp_parallel_predict.pipeline.progress import Progress

pytestmark = pytest.mark.timeout(30)


def source(total):
    return [SimpleNamespace(total=lambda: total)]


def executor(alive=2, restarts=0):
    counts = WorkerCounts(alive, restarts)
    return SimpleNamespace(counts=lambda: counts, describe=lambda: "two workers")


def use(monkeypatch, stderr, stdout=None):
    """Not `sys.stderr` itself, which pytest sets again between a fixture and its test."""
    streams = SimpleNamespace(stderr=stderr, stdout=stdout or io.StringIO())
    for module in (progress, allennlp_tqdm):
        monkeypatch.setattr(module, "sys", streams)


@pytest.fixture
def log(monkeypatch):
    """A stderr that is no terminal."""
    stream = io.StringIO()
    use(monkeypatch, stream)
    monkeypatch.setattr(progress, "LOG_INTERVAL", 0.05)
    return stream


@pytest.fixture
def terminal(monkeypatch):
    """A terminal as stderr, whose content is read at the end."""
    ours, theirs = pty.openpty()
    stream = open(theirs, "w")
    use(monkeypatch, stream)

    def read():
        stream.flush()
        content = b""
        while select.select([ours], [], [], 0.1)[0]:
            content += os.read(ours, 1 << 16)
        return content.decode()

    yield read
    monkeypatch.undo()
    stream.close()
    os.close(ours)


class TestALog:
    def test_a_line_every_so_often_and_not_every_batch(self, log):
        shown = Progress("auto", source(1000), False)
        for done in range(1, 201):
            time.sleep(0.001)
            shown.update(done, 0, executor())
        shown.close()
        lines = log.getvalue().splitlines()
        assert 1 <= len(lines) <= 40 and "\r" not in log.getvalue()

    def test_what_a_line_says(self, log):
        shown = Progress("auto", source(30_000), False, done=1000)
        time.sleep(0.1)
        shown.update(12_000, 3, executor(2, 1))
        (line,) = log.getvalue().splitlines()
        assert line.startswith("predicting: 12,000 of 30,000 lines (40%), ")
        assert " lines/s, 0:00 left, workers=2, restarts=1, failed=3" in line
        rate = float(line.split("%), ")[1].split(" ")[0].replace(",", ""))
        assert 11_000 / 2 < rate < 11_000 / 0.1  # only what this run did

    def test_without_a_total(self, log):
        shown = Progress("auto", source(None), False)
        time.sleep(0.06)
        shown.update(500, 0, executor())
        (line,) = log.getvalue().splitlines()
        assert line.startswith("predicting: 500 lines, ") and "left" not in line
        assert "of" not in line.split()

    def test_never(self, log):
        shown = Progress("never", source(10), False)
        time.sleep(0.06)
        shown.update(5, 0, executor())
        shown.close()
        assert log.getvalue() == ""

    def test_a_short_run_writes_none(self, log, monkeypatch):
        monkeypatch.setattr(progress, "LOG_INTERVAL", 30.0)
        shown = Progress("auto", source(10), False)
        shown.update(10, 0, executor())
        shown.close()
        assert log.getvalue() == ""
        assert "10 lines in" in shown.summary(executor())


class TestATerminal:
    def test_one_bar(self, terminal):
        shown = Progress("auto", source(200), False)
        for done in range(10, 201, 10):
            time.sleep(0.03)
            shown.update(done, done // 100, executor())
        shown.close()
        text = terminal()
        assert text.count("\n") == 1 and "\r" in text
        assert "200/200" in text and "workers=2" in text and "failed=1" in text
        assert "lines/s" in text

    def test_without_a_total(self, terminal):
        shown = Progress("auto", source(None), False)
        shown.update(10, 0, executor())
        time.sleep(0.25)
        shown.update(20, 0, executor())
        shown.close()
        assert "20 lines [" in terminal()

    def test_file_friendly_lines(self, terminal, monkeypatch):
        monkeypatch.setattr(common_logging, "FILE_FRIENDLY_LOGGING", True)
        monkeypatch.setattr(progress, "LOG_INTERVAL", 0.05)
        shown = Progress("auto", source(200), True)
        time.sleep(0.06)
        shown.update(100, 0, executor())
        shown.close()
        assert terminal().strip().startswith("predicting: 100 of 200 lines (50%)")

    def test_no_bar_between_predictions(self, terminal, monkeypatch):
        use(monkeypatch, progress.sys.stderr, stdout=progress.sys.stderr)
        for mode, has_bar in (("auto", False), ("always", True)):
            shown = Progress(mode, source(200), True)
            assert (shown._bar is not None) == has_bar
            shown.close()


@pytest.mark.parametrize("total, done", [(None, 5), (10, 0)])
def test_json_without_a_total_or_a_rate(tmp_path, total, done):
    with open(tmp_path / "progress", "w") as file:
        shown = Progress(f"json:{file.fileno()}", source(total), False)
        shown.update(done, 0, executor())
    line = json.loads((tmp_path / "progress").read_text())
    assert (line["lines"], line["remaining_seconds"]) == (done, None)


def test_the_time_left():
    assert [progress.clock(s) for s in (0, 61.5, 3600, 90_061)] == [
        "0:00",
        "1:01",
        "1:00:00",
        "25:01:01",
    ]


def test_stdin_has_no_total():
    assert LineSource("-").total() is None
