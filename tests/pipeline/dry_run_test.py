"""`--dry-run`: what a run would do is printed, and nothing is written."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.faults import as_line, command, numbered, settings

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).parent.parent.parent


def contents(folder):
    names = {"stdout", "stderr"}
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name not in names}


def run(archive, folder, inputs, *flags, status=0):
    (folder / "in").write_text("".join(map(as_line, inputs)))
    before = contents(folder)
    flags = ["--output-file", folder / "out", "--silent", "--dry-run", *flags]
    with command(archive, folder / "in", *flags, folder=folder) as ran:
        assert ran.wait() == status, ran.stderr
    assert contents(folder) == before
    return ran


def test_it_prints_what_can_be_expected_and_writes_nothing(archive, tmp_path):
    flags = ["--summary", tmp_path / "summary.json", "--errors-file", tmp_path / "errors"]
    flags += settings(executor_num_workers=2, batching_batch_size=4, checkpoint_interval=0)
    ran = run(archive, tmp_path, numbered(40), *flags)
    assert ran.stdout.startswith('prediction of input line 1:\n{"n": 0, "pad": ""}\n')
    used = json.loads(re.search(r"^settings:\n(\{.*?^\})", ran.stdout, re.M | re.S).group(1))
    assert used["executor"]["num_workers"] == 2
    assert used["batching"] == {"type": "in_order", "batch_size": 4}
    assert "sample: 40 inputs" in ran.stdout and "2 workers" in ran.stdout
    assert re.search(r"estimate: about 40 lines in \d+:\d\d .* [1-9][\d,]* MB of mem", ran.stdout)


@pytest.mark.parametrize("count", [1, 12])
@pytest.mark.parametrize("more", [{"num_workers": 2}, {"num_workers": 1}, {"type": "in_process"}])
def test_every_input_of_the_sample_counts(archive, tmp_path, count, more):
    flags = settings(**{f"executor_{key}": value for key, value in more.items()})
    flags += ["--batch-size", 4]
    assert f"sample: {count} inputs from" in run(archive, tmp_path, numbered(count), *flags).stdout


def test_an_existing_output_and_its_checkpoint_stay(archive, tmp_path):
    (tmp_path / "out").write_text("half a line")
    (tmp_path / "out.checkpoint").write_text("{}")
    assert "--resume" in run(archive, tmp_path, numbered(3), status=1).stderr
    assert "is damaged" in run(archive, tmp_path, numbered(3), "--resume", status=1).stderr
    run(archive, tmp_path, numbered(3), "--overwrite")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_failures_in_the_sample_are_reported(archive, tmp_path, on_error):
    inputs = numbered(20, {0: "raise", 7: "kill"})
    ran = run(archive, tmp_path, inputs, "--on-error", on_error, "--num-workers", 2, status=3)
    assert "2 of 20 inputs failed, the first by input line 1: ValueError" in ran.stderr
    assert "prediction of" not in ran.stdout and "estimate: about 20 lines" in ran.stdout


def test_parts_of_the_input(archive, tmp_path):
    ran = run(archive, tmp_path, numbered(40), "--limit", 10, *settings(executor_type="in_process"))
    assert "estimate: about 10 lines" in ran.stdout and "num_workers" not in ran.stdout


@pytest.mark.parametrize(
    "source, flags, message",
    [
        ("-", [], "--dry-run needs an input that is a file"),
        ("in", ["--profile"], "give --dry-run or --profile, not both"),
        ("none", [], "cannot read the input file"),
    ],
)
def test_what_cannot_be_is_said_at_once(tmp_path, archive, source, flags, message):
    (tmp_path / "in").write_text("{}\n")
    source = source if source == "-" else tmp_path / source
    flags = ["--output-file", tmp_path / "out", "--silent", "--dry-run", *flags]
    with command(archive, source, *flags, folder=tmp_path) as ran:
        assert ran.wait() == 1
    assert message in ran.stderr and not (tmp_path / "out").exists()


def test_the_example_runs():
    script = (ROOT / "examples/dry_run.sh").read_text()
    function = (
        f'allennlp-parallel-predict() {{ {sys.executable} -m allennlp_parallel_predict "$@"; }}'
    )
    ran = subprocess.run(
        ["bash", "-ec", f"{function}\n{script}"], cwd=ROOT, stdout=subprocess.PIPE, check=True
    )
    assert b"predicted_tokens" in ran.stdout and b"estimate: about " in ran.stdout
