"""`--limit N`: the first N inputs, and not more."""

import os
import signal

import pytest

from tests.support.faults import (
    as_line,
    command,
    expected,
    numbered,
    settings,
    wait_until,
)

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def lines(tmp_path):
    """20 inputs between blank lines; the tenth ends the run if it is predicted."""
    path = tmp_path / "in.jsonl"
    inputs = [as_line(value) + "\n" * (n % 3 == 0) for n, value in enumerate(numbered(20))]
    inputs[9] = "not JSON\n"
    path.write_text("\n" + "".join(inputs))
    return path


def run(archive, source, folder, *flags, status=0, **more):
    output = folder / "out"
    with command(
        archive, source, "--output-file", output, "--silent", *flags, folder=folder, **more
    ) as ran:
        assert ran.wait() == status, ran.stderr
    return output.read_text() if output.exists() else "", ran.stderr


@pytest.mark.parametrize("batching", ["in_order", "bucket"])
@pytest.mark.parametrize("count", [1, 4, 9])
def test_blank_lines_do_not_count(archive, lines, tmp_path, batching, count):
    flags = settings(batching_type=batching, batching_batch_size=4, executor_num_workers=2)
    output, _ = run(archive, lines, tmp_path, "--limit", count, *flags)
    assert output == expected(range(count))


def test_more_than_there_is(archive, tmp_path):
    (tmp_path / "in").write_text("".join(map(as_line, numbered(3))))
    output, _ = run(archive, tmp_path / "in", tmp_path, "--limit", 50)
    assert output == expected(range(3))


def test_instances_of_a_dataset_reader(archive, tmp_path):
    numbers = tmp_path / "numbers"
    numbers.write_text("".join(f"{n}\n" for n in range(30)))
    flags = ["--use-dataset-reader", *settings(executor_type="in_process", batching_batch_size=4)]
    output, _ = run(archive, numbers, tmp_path, "--limit", 7, *flags)
    assert output == expected(range(7))


def test_standard_input_is_not_waited_for(archive, tmp_path):
    """The pipe stays open and its writer silent."""
    reading, writing = os.pipe()
    try:
        os.write(writing, "".join(map(as_line, numbered(3))).encode())
        output, _ = run(archive, "-", tmp_path, "--limit", 3, "--batch-size", 8, stdin=reading)
    finally:
        os.close(reading)
        os.close(writing)
    assert output == expected(range(3))


def test_shards_of_the_limited_input(archive, lines, tmp_path):
    flags = settings(executor_type="in_process", batching_batch_size=2)
    shards = [
        run(archive, lines, tmp_path, "--limit", 9, "--shard", f"{k}/3", *flags)[0]
        for k in (1, 2, 3)
    ]
    assert "".join(shards) == expected(range(9))


def test_resume_is_only_of_the_same_limit(archive, tmp_path):
    stop = {"do": "sleep", "seconds": 100, "once": str(tmp_path / "once")}
    (tmp_path / "in").write_text("".join(map(as_line, numbered(40, {10: stop}))))
    flags = ["--silent", "--output-file", tmp_path / "out"]
    flags += settings(batching_batch_size=2, executor_num_workers=1, checkpoint_interval=0)
    with command(archive, tmp_path / "in", "--limit", 15, *flags, folder=tmp_path) as ran:
        wait_until(lambda: (tmp_path / "once").exists())
        ran.signal(signal.SIGINT)
        assert ran.wait() == 130
    assert 0 < (tmp_path / "out").stat().st_size
    _, refusal = run(archive, tmp_path / "in", tmp_path, "--resume", *flags, status=1)
    assert "another --limit (15 then, null now)" in refusal
    output, _ = run(archive, tmp_path / "in", tmp_path, "--resume", "--limit", 15, *flags)
    assert output == expected(range(15))


def test_a_limit_that_is_none(archive, lines, tmp_path):
    _, stderr = run(archive, lines, tmp_path, "--limit", 0, status=1)
    assert "--limit must be at least 1, but it is 0" in stderr
