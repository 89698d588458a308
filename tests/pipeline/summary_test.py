"""`--summary` and `--progress json`: what programs see of a run."""

import json
import os
import signal

import pytest

from tests.support.faults import (
    as_line,
    command,
    numbered,
    settings,
    wait_until,
)

pytestmark = pytest.mark.timeout(90)


def run(archive, folder, inputs, *flags, status=0):
    (folder / "in").write_text("".join(map(as_line, inputs)))
    files = ["--output-file", folder / "out", "--silent", "--summary", folder / "summary.json"]
    flags = [*files, "--batch-size", 4, "--num-workers", 2, *flags]
    with command(archive, folder / "in", *flags, folder=folder) as running:
        assert running.wait() == status, running.stderr
    return running


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize(
    "faults, flags, status, lines, failures, restarts",
    [
        ({}, [], 0, 12, 0, 0),
        ({5: "kill", 7: "raise"}, ["--on-error", "skip"], 3, 12, 2, True),
        ({4: "raise"}, [], 1, 4, 0, 0),
    ],
)
def test_the_figures(archive, tmp_path, faults, flags, status, lines, failures, restarts):
    run(archive, tmp_path, numbered(12, faults), *flags, status=status)
    found = summary(tmp_path)
    seconds, rate = found.pop("seconds"), found.pop("lines_per_second")
    assert seconds > 0 and rate == pytest.approx(lines / seconds, rel=0.2)
    assert (found.pop("restarts") > 0) == bool(restarts)
    expected = {"lines": lines, "failures": failures, "workers": 2, "exit_status": status}
    assert found == expected


def test_an_interrupted_run(archive, tmp_path):
    stop = {"do": "sleep", "seconds": 100, "once": str(tmp_path / "once")}
    (tmp_path / "in").write_text("".join(map(as_line, numbered(20, {10: stop}))))
    flags = ["--output-file", tmp_path / "out", "--silent", "--summary", tmp_path / "summary.json"]
    flags += settings(batching_batch_size=2, executor_num_workers=1, checkpoint_interval=0)
    with command(archive, tmp_path / "in", *flags, folder=tmp_path) as ran:
        wait_until(lambda: (tmp_path / "once").exists())
        ran.signal(signal.SIGINT)
        assert ran.wait() == 130
    assert (summary(tmp_path)["lines"], summary(tmp_path)["exit_status"]) == (10, 130)
    with command(archive, tmp_path / "in", "--resume", *flags, folder=tmp_path) as ran:
        assert ran.wait() == 0, ran.stderr
    assert (summary(tmp_path)["lines"], summary(tmp_path)["exit_status"]) == (10, 0)


@pytest.mark.parametrize("name", ["in", "out", "none/summary.json"])
def test_no_other_file_is_lost(archive, tmp_path, name):
    flags = ["--summary", tmp_path / name]
    ran = run(archive, tmp_path, numbered(3), *flags, status=1)
    assert name in ran.stderr and "Traceback" not in ran.stderr
    assert (tmp_path / "in").read_text() == "".join(map(as_line, numbered(3)))
    assert not (tmp_path / "out").exists() and "none" not in os.listdir(tmp_path)


def test_progress(archive, tmp_path):
    slow = {n: {"do": "sleep", "seconds": 0.25} for n in range(12)}
    ran = run(archive, tmp_path, numbered(12, slow), "--progress", "json", "--batch-size", 1)
    found = [json.loads(line) for line in ran.stderr.splitlines() if line.startswith("{")]
    assert len(found) >= 2
    keys = {"lines", "failures", "seconds", "lines_per_second", "workers", "restarts"}
    assert all({*line} == {*keys, "done", "left", "remaining_seconds"} for line in found)
    assert [line["done"] for line in found] == sorted(line["done"] for line in found)
    assert all(line["done"] + line["left"] == 12 for line in found)
    assert (found[-1]["done"], found[-1]["workers"]) == (12, 2)
    for line in found:
        remaining = line["left"] / line["lines_per_second"]
        assert line["remaining_seconds"] == pytest.approx(remaining, abs=0.1)


def test_progress_on_a_file_descriptor(archive, tmp_path):
    reading, writing = os.pipe()
    try:
        ran = run(archive, tmp_path, numbered(12), "--progress", f"json:{writing}")
        os.close(writing)
        lines = os.read(reading, 1 << 16).decode().splitlines()
    finally:
        os.close(reading)
    assert json.loads(lines[-1])["done"] == 12 and '"done"' not in ran.stderr


def test_progress_that_nobody_reads(archive, tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        run(archive, tmp_path, numbered(12), "--progress", f"json:{writing}")
    finally:
        os.close(writing)


@pytest.mark.parametrize(
    "mode, message", [("json:97", "cannot use file descriptor 97"), ("jsn", "must be one of")]
)
def test_progress_that_cannot_be(archive, tmp_path, mode, message):
    ran = run(archive, tmp_path, numbered(1), "--progress", mode, status=1)
    assert message in ran.stderr and "Traceback" not in ran.stderr
