"""Compressed outputs of real runs, read by the tools of their format."""

import gzip
import json
import shutil
import signal
import subprocess
import sys

import pytest

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data.output_formats import output_class, output_format
from tests.pipeline.checkpoint_test import BUCKETS, Job
from tests.support.faults import command, expected, faulty_archive, numbered, settings

pytestmark = pytest.mark.timeout(120)
MAGIC = {"gz": b"\x1f\x8b\x08", "zst": b"\x28\xb5\x2f\xfd"}


@pytest.fixture(params=["gz", "zst"])
def format(request):
    if request.param == "zst":
        pytest.importorskip("zstandard")
    if shutil.which(tool(request.param)) is None:
        pytest.skip(f"there is no {tool(request.param)}")
    return request.param


def tool(format):
    return {"gz": "gzip", "zst": "zstd"}[format]


def decompressed(path, format):
    """What the command of this format reads, which fails if the file is not valid."""
    subprocess.run([tool(format), "-t", "-q"], stdin=path.open("rb"), check=True)
    ran = subprocess.run([tool(format), "-dc"], stdin=path.open("rb"), stdout=-1, check=True)
    return ran.stdout


def predict(archive, folder, inputs, *flags, status=0):
    (folder / "input").write_text("".join(json.dumps(line) + "\n" for line in inputs))
    flags = ["--silent", "--num-workers", 2, *flags]
    with command(archive, folder / "input", *flags, folder=folder) as running:
        assert running.wait() == status, running.stderr
    assert "Traceback" not in running.stderr
    return running


class TestInterruptedAndResumed:
    @pytest.mark.parametrize("overrides", [{}, BUCKETS], ids=["in_order", "bucket"])
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
    def test_the_same_content(self, archive, tmp_path, format, overrides, number):
        job = Job(archive, tmp_path)
        if overrides:
            job.flags = job.flags[2:]
        calm = job.calm(overrides=overrides)
        job.flags += ["--output-format", format]
        job.output = tmp_path / f"output.{format}"
        job.checkpoint = tmp_path / f"output.{format}.checkpoint"
        assert job.kill(overrides=overrides, number=number) in (130, -signal.SIGKILL)
        if number == signal.SIGINT:
            assert calm[0].startswith(decompressed(job.output, format))
        first = json.loads(job.checkpoint.read_text())["content"]["written"]["output_bytes"]
        job.kill("--resume", overrides=overrides, number=number, at_least=first + 1, after=0.1)
        if job.checkpoint.exists():
            assert job.resume(overrides=overrides).status == 3
        found = decompressed(job.output, format), job.lines_of(job.errors)
        assert found == calm
        assert job.output.read_bytes().count(MAGIC[format]) > 2

    def test_a_part_that_was_changed(self, archive, tmp_path):
        job = Job(archive, tmp_path)
        job.flags += ["--output-format", "gz"]
        assert job.kill(number=signal.SIGINT, after=0.2) == 130
        content = bytearray(job.output.read_bytes())
        content[20] ^= 1
        job.output.write_bytes(content)
        assert "output has changed" in job.refuse()

    def test_another_format(self, archive, tmp_path):
        job = Job(archive, tmp_path)
        job.flags += ["--output-format", "gz"]
        assert job.kill(number=signal.SIGINT, after=0.2) == 130
        assert "another --output-format" in job.refuse("--output-format", "lines")


class TestOneRun:
    def test_nothing_to_write(self, archive, tmp_path, format):
        output = tmp_path / "output"
        predict(archive, tmp_path, [], "--output-file", output, "--output-format", format)
        assert decompressed(output, format) == b""

    def test_an_error_leaves_a_valid_file(self, archive, tmp_path, format):
        output = tmp_path / "output"
        inputs = numbered(40, {30: "raise"})
        flags = ["--output-file", output, "--output-format", format]
        with pytest.raises(AssertionError, match="the model cannot take 30"):
            predict(archive, tmp_path, inputs, *flags)
        assert decompressed(output, format).decode() == expected(range(30))

    def test_a_pipe(self, archive, tmp_path, format):
        flags = ["--output-file", "/dev/stdout", "--output-format", format]
        predict(archive, tmp_path, numbered(20), *flags)
        assert decompressed(tmp_path / "stdout", format).decode() == expected(range(20))


class TestTheName:
    def test_a_suffix_alone_changes_nothing(self, archive, tmp_path):
        predict(archive, tmp_path, numbered(3), "--output-file", tmp_path / "output.gz")
        assert (tmp_path / "output.gz").read_text() == expected(range(3))
        flags = ["--output-file", tmp_path / "output.gz", "--output-format", "auto"]
        predict(archive, tmp_path, numbered(3), *flags)
        assert gzip.decompress((tmp_path / "output.gz").read_bytes()).decode() == expected(range(3))

    @pytest.mark.parametrize(
        "name, path, format",
        [
            (None, "x.gz", "lines"),
            ("auto", "x.jsonl.gz", "gz"),
            ("auto", "x.zst", "zst"),
            ("auto", "x.jsonl", "lines"),
            ("auto", "x.auto", "lines"),
            ("zst", "x.gz", "zst"),
        ],
    )
    def test_the_format(self, name, path, format):
        assert output_format(name, path) == format


class TestMistakesAreToldEarly:
    """With an archive that takes a minute to load."""

    def test_without_an_output_file(self, tmp_path):
        archive = faulty_archive(tmp_path, loading_fault="sleep")
        flags = ["--output-format", "gz", *settings(checkpoint_interval=1)]
        (tmp_path / "input").write_text("{}\n")
        with command(archive, tmp_path / "input", *flags, folder=tmp_path) as running:
            assert running.wait(25) == 1
        assert "--output-format needs an --output-file" in running.stderr

    def test_without_the_library(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(SettingsError, match=r"pip install 'allennlp-parallel-predict\[zstd\]'"):
            output_class("zst")
