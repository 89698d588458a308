"""`--shard K/N`: the outputs of all shards, one after the other, are the output of the whole."""

import signal

import pytest

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data.limits import LimitedSource
from allennlp_parallel_predict.data.sharding import Shard
from allennlp_parallel_predict.data.sources import LineSource
from tests.support.faults import as_line, command, numbered, settings, wait_until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """50 inputs between blank lines."""
    path = tmp_path_factory.mktemp("input") / "in.jsonl"
    inputs = [as_line(value) + "\n" * (n % 3 == 0) for n, value in enumerate(numbered(50))]
    path.write_text("\n" + "".join(inputs) + "\n\n")
    return path


@pytest.mark.parametrize("text", ["0/2", "3/2", "1/0", "1", "-1/2", "a/b", "1/2/3", ""])
def test_what_is_not_a_shard(text):
    with pytest.raises(SettingsError, match="K/N"):
        Shard.parse(text)


@pytest.mark.parametrize("span", [1, 4, 100])
@pytest.mark.parametrize("count", [1, 3, 16, 60])
def test_shards_are_contiguous_and_cut_between_spans(lines, count, span):
    whole = list(LineSource(str(lines)))
    inputs = []
    for number in range(1, count + 1):
        bounds = Shard(number, count).bounds(LineSource(str(lines)), span)
        assert bounds.start % span == 0 or bounds.start == len(whole)
        source = LineSource(str(lines), bounds.lines, bounds.start)
        inputs += list(LimitedSource(source, bounds.end))
    assert inputs == whole


def run(archive, lines, folder, *flags, count=None):
    """What the command writes to its output and the console, in all shards or at once."""
    folder.mkdir()
    output = console = ""
    for number in range(1, (count or 1) + 1):
        shard = ["--shard", f"{number}/{count}"] if count else []
        with command(
            archive, lines, "--output-file", folder / "out", *shard, *flags, folder=folder
        ) as ran:
            assert ran.wait() == 0, ran.stderr
        output += (folder / "out").read_text()
        console += ran.stdout
    return output, console


@pytest.mark.parametrize(
    "batching",
    [
        {"type": "in_order", "batch_size": 4},
        {"type": "bucket", "batch_size": 4, "window": 8},
        {"type": "bucket", "max_tokens": 60, "window": 8},
    ],
    ids=str,
)
def test_the_outputs_concatenate_to_the_whole(archive, lines, tmp_path, batching):
    flags = settings(batching=batching, executor_num_workers=2)
    whole = run(archive, lines, tmp_path / "whole", *flags)
    assert "input 49:" in whole[1]
    assert run(archive, lines, tmp_path / "shards", *flags, count=3) == whole


def test_instances_of_a_dataset_reader(archive, tmp_path):
    numbers = tmp_path / "numbers"
    numbers.write_text("".join(f"{n}\n" for n in range(30)))
    flags = ["--use-dataset-reader", *settings(executor_type="in_process", batching_batch_size=4)]
    whole = run(archive, numbers, tmp_path / "whole", *flags)
    assert run(archive, numbers, tmp_path / "shards", *flags, count=4) == whole


def test_more_shards_than_batches(archive, lines, tmp_path):
    flags = settings(executor_type="in_process", batching_batch_size=40)
    whole = run(archive, lines, tmp_path / "whole", *flags)
    assert run(archive, lines, tmp_path / "shards", *flags, count=4) == whole


def test_an_interrupted_shard_is_resumed_as_itself(archive, tmp_path):
    lines, output = tmp_path / "in.jsonl", tmp_path / "out"
    stop = {"do": "sleep", "seconds": 100, "once": str(tmp_path / "once")}
    lines.write_text("\n".join(map(as_line, numbered(40, {30: stop}))))
    flags = ["--output-file", output, "--silent"]
    flags += settings(batching_batch_size=2, executor_num_workers=1, checkpoint_interval=0)
    with command(archive, lines, *flags, "--shard", "2/2", folder=tmp_path) as ran:
        wait_until(lambda: (tmp_path / "once").exists())
        ran.signal(signal.SIGINT)
        assert ran.wait() == 130
    with command(archive, lines, *flags, "--shard", "1/2", "--resume", folder=tmp_path) as ran:
        assert ran.wait() != 0
        assert "another --shard" in ran.stderr
    with command(archive, lines, *flags, "--shard", "2/2", "--resume", folder=tmp_path) as ran:
        assert ran.wait() == 0, ran.stderr
    resumed = output.read_text()
    with command(archive, lines, *flags, "--shard", "2/2", folder=tmp_path) as ran:
        assert ran.wait() == 0, ran.stderr
    assert resumed == output.read_text()
    assert resumed.startswith('{"n": 20')


def test_stdin_cannot_be_counted(archive, tmp_path):
    with command(archive, "-", "--shard", "1/2", folder=tmp_path) as ran:
        assert ran.wait() != 0
    assert "--shard needs an input file" in ran.stderr
