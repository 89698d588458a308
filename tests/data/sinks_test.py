"""Full disks and closed pipes; each as a real process, whose last flush counts too."""

import os
import resource
import subprocess
import sys
import zlib

import pytest

from allennlp_parallel_predict.common.errors import OutputClosed
from allennlp_parallel_predict.common.messages import (
    Batch,
    BatchKind,
    BatchResult,
    Failure,
    OnError,
)
from allennlp_parallel_predict.common.remote_errors import RemoteError
from allennlp_parallel_predict.data.files import OutputFile
from allennlp_parallel_predict.data.reorder_buffer import CompletedBatch
from allennlp_parallel_predict.data.sinks import OutputPosition, Sink
from tests.support.faults import command, faulty_archive

pytestmark = pytest.mark.timeout(120)


def sink_to(output, errors=None, **more):
    files = [OutputFile(str(path)) for path in (output, errors) if path is not None]
    return Sink(*files, print_to_console=False, **more)


def runs_of(outputs, failures=()):
    size = len(outputs) + len(failures)
    batch = Batch(
        0, BatchKind.LINES, [f"{n}\n" for n in range(size)], range(size), range(1, size + 1)
    )
    return [CompletedBatch(batch, BatchResult(0, outputs, failures=list(failures)))]


def test_failures_are_logged_where_there_is_no_errors_file(tmp_path, caplog):
    sink = sink_to(tmp_path / "output", on_error=OnError.SKIP)
    sink.write(runs_of(["one\n"], [Failure(1, RemoteError.of(ValueError("too long")))]))
    sink.close()
    assert "input line 2 failed: ValueError: too long" in caplog.text
    assert (tmp_path / "output").read_text() == "one\n"


class TestAFullDisk:
    @pytest.mark.parametrize("full", ["output", "errors"])
    def test_the_file_is_named(self, tmp_path, full):
        files = {"output": str(tmp_path / "output"), "errors": None, full: "/dev/full"}
        sink = sink_to(files["output"], files["errors"], on_error=OnError.SKIP)
        sink.write(runs_of(["x" * 10]))
        if full == "errors":
            sink._errors.write(b"x")
        with pytest.raises(OSError) as caught:
            sink.flush()
        assert caught.value.explanation == "cannot write /dev/full: No space left on device"
        with pytest.raises(OSError):
            sink.close()
        if full == "errors":
            assert (tmp_path / "output").read_text() == "x" * 10

    # So little that it is only written at the very end, and more than is kept back.
    @pytest.mark.parametrize("count", [1, 5000])
    def test_the_command(self, archive, tmp_path, count):
        (tmp_path / "input").write_text("".join(f'{{"n": {n}}}\n' for n in range(count)))
        flags = ["--silent", "--output-file", "/dev/full"]
        with command(archive, tmp_path / "input", *flags, folder=tmp_path) as running:
            assert running.wait() == 1
        assert "cannot write /dev/full: No space left on device" in running.stderr
        assert "Traceback" not in running.stderr

    def test_the_padding_that_a_bucket_saves_is_reported(self, archive, tmp_path):
        lines = ('{"n": %d, "text": "%s"}\n' % (n, "x" * (n % 5 * 10)) for n in range(100))
        (tmp_path / "input").write_text("".join(lines))
        settings = '{"batching": {"type": "bucket", "batch_size": 10}}'
        flags = ["--silent", "--output-file", tmp_path / "output", "--parallel-overrides", settings]
        with command(archive, tmp_path / "input", *flags, folder=tmp_path) as running:
            assert running.wait() == 0
        assert "% of the padding saved" in running.stderr

    def test_the_checkpoint_before_stays(self, archive, tmp_path):
        """A small file system would do it; a limit on the size of files is at hand everywhere."""
        (tmp_path / "input").write_text("".join(f'{{"n": {n}}}\n' for n in range(5000)))
        flags = ["--silent", "--output-file", tmp_path / "output"]
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, before[1]))
        try:
            with command(archive, tmp_path / "input", *flags, folder=tmp_path) as running:
                assert running.wait() == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert f"cannot write {tmp_path / 'output'}: File too large" in running.stderr
        with command(archive, tmp_path / "input", *flags, "--resume", folder=tmp_path) as running:
            assert running.wait() == 0
        with command(
            archive, tmp_path / "input", *flags[:2], tmp_path / "calm", folder=tmp_path
        ) as r:
            assert r.wait() == 0
        assert (tmp_path / "output").read_bytes() == (tmp_path / "calm").read_bytes()


class TestAClosedPipe:
    def test_the_sink(self):
        end, other_end = os.pipe()
        os.close(end)
        sink = sink_to(f"/dev/fd/{other_end}")
        sink.write(runs_of(["x" * 10]))
        with pytest.raises(OutputClosed):
            sink.flush()
        os.close(other_end)


def real_command(archive, folder, lines, *flags):
    """The interpreter and all, as a user starts it."""
    (folder / "input").write_text("".join(f'{{"n": {n}}}\n' for n in range(lines)))
    arguments = [str(archive), str(folder / "input"), "--predictor", "faulty"]
    arguments += [
        "--include-package",
        "tests.fixtures.faulty_predictors",
        "--num-workers",
        "2",
        *flags,
    ]
    return [sys.executable, "-W", "ignore", "-m", "allennlp_parallel_predict", *arguments]


class TestARealProcess:
    def test_head_and_a_full_disk(self, tmp_path):
        """Both at once, as most of the time is starting."""
        archive = faulty_archive(tmp_path)
        arguments = real_command(archive, tmp_path, 20_000)
        with open("/dev/full", "w") as full:
            to_full = subprocess.Popen(arguments, stdout=full, stderr=subprocess.PIPE)
        to_head = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert to_head.stdout.readline().startswith(b"input 0: ")
        to_head.stdout.close()
        errors = [to_full.communicate()[1].decode(), to_head.stderr.read().decode()]
        assert to_full.returncode == 1
        assert "cannot write to the standard output: No space left on device" in errors[0]
        assert to_head.wait() == 141
        for text in errors:
            assert "Traceback" not in text and "Exception ignored" not in text


class TestResume:
    def test_a_file_is_cut_where_the_checkpoint_says(self, tmp_path):
        (tmp_path / "output").write_text("one\ntwo\nthr")
        output = OutputFile(str(tmp_path / "output"))
        assert output.resume_at(4, zlib.crc32(b"one\n"))
        assert (tmp_path / "output").read_text() == "one\ntwo\nthr"
        sink = Sink(output, print_to_console=False, start=OutputPosition(1, 1, output_bytes=4))
        sink.write(runs_of(["2\n"]))
        sink.close()
        assert (tmp_path / "output").read_text() == "one\n2\n"
        assert sink.written[4:6] == (6, zlib.crc32(b"one\n2\n"))

    @pytest.mark.parametrize("content", [None, b"", b"on", b"onE\n", b"One\ntwo\n"])
    def test_a_change_anywhere_is_noticed(self, tmp_path, content):
        if content is not None:
            (tmp_path / "output").write_bytes(content)
        output = OutputFile(str(tmp_path / "output"))
        assert not output.resume_at(4, zlib.crc32(b"one\n"))
        output.close()
