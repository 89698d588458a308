"""`--resume`: the same bytes as without the interruption, or a refusal."""

import gzip
import json
import os
import random
import resource
import signal
import time

import pytest

from allennlp_parallel_predict.common.errors import ResumeError
from allennlp_parallel_predict.data.sinks import OutputPosition
from allennlp_parallel_predict.pipeline.checkpoint import Checkpoint, Identity
from tests.support.faults import (
    as_line,
    command,
    expected,
    faulty_archive,
    numbered,
    settings,
    wait_until,
)

pytestmark = pytest.mark.timeout(120)

BUCKETS = {"batching": {"type": "bucket", "batch_size": 3, "window": 15}}


class Job:
    """One command on one input, which is run calmly, or killed and resumed."""

    def __init__(self, archive, folder, count=240, seconds=0.006, name="input"):
        self.archive, self.folder = archive, folder
        self.input, self.output = folder / name, folder / "output"
        self.errors, self.checkpoint = folder / "errors", folder / "output.checkpoint"
        faults = {n: {"do": "sleep", "seconds": seconds} for n in range(count)}
        faults.update({n: "raise" for n in range(5, count, 30)})
        lines = [
            json.dumps(line) + "\n" * (1 + (n % 11 == 0))
            for n, line in enumerate(numbered(count, faults))
        ]
        self.write("".join(lines))
        self.flags = ["--batch-size", 3, "--on-error", "skip", "--silent"]

    def write(self, text):
        if self.input.suffix == ".gz":
            self.input.write_bytes(gzip.compress(text.encode()))
        else:
            self.input.write_text(text)

    def start(self, *more, overrides=None, output=None, errors=None):
        values = {"executor_num_workers": 2, "checkpoint_interval": 0.05, **(overrides or {})}
        files = ["--output-file", output or self.output, "--errors-file", errors or self.errors]
        return command(
            self.archive,
            self.input,
            *files,
            *self.flags,
            *settings(**values),
            *more,
            folder=self.folder,
        )

    def calm(self, **more):
        with self.start(
            output=self.folder / "calm", errors=self.folder / "calm errors", **more
        ) as r:
            assert r.wait() == 3
        for record in map(json.loads, (self.folder / "calm errors").open()):
            assert record["type"] == "ValueError"
        return (self.folder / "calm").read_bytes(), self.lines_of(self.folder / "calm errors")

    def lines_of(self, path):
        return [(r["line"], r["input"]) for r in map(json.loads, path.open())]

    def kill(self, *more, number=signal.SIGKILL, after=0.0, at_least=1, **others):
        with self.start(*more, **others) as running:
            wait_until(lambda: self.bytes_written() >= at_least or running.has_ended())
            time.sleep(after)
            running.signal(number)
            return running.wait()

    def bytes_written(self):
        return self.output.stat().st_size if self.output.exists() else 0

    def resume(self, *more, **others):
        with self.start("--resume", *more, **others) as running:
            running.wait()
        return running

    def refuse(self, *more, **others):
        before = self.output.read_bytes()
        ran = self.resume(*more, **others)
        assert ran.status == 1 and "Traceback" not in ran.stderr
        assert self.output.read_bytes() == before
        return ran.stderr


@pytest.fixture
def job(archive, tmp_path):
    return Job(archive, tmp_path)


class TestTheSameBytes:
    @pytest.mark.parametrize("overrides", [{}, BUCKETS], ids=["in_order", "bucket"])
    @pytest.mark.parametrize("name", ["input", "input.gz"])
    def test_killed_at_several_moments(self, archive, tmp_path, overrides, name):
        job = Job(archive, tmp_path, name=name)
        if overrides:
            job.flags = job.flags[2:]
        calm = job.calm(overrides=overrides)
        assert job.kill(overrides=overrides) == -signal.SIGKILL
        for attempt in range(3):
            if job.checkpoint.exists():  # or else it was complete before it was killed
                size = job.bytes_written() + 200
                job.kill("--resume", overrides=overrides, at_least=size, after=0.07 * attempt)
        if job.checkpoint.exists():
            assert job.resume(overrides=overrides).status == 3
        assert (job.output.read_bytes(), job.lines_of(job.errors)) == calm
        assert sorted(p.name for p in tmp_path.iterdir() if "checkpoint" in p.name) == []

    @pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_interrupted(self, job, number, status):
        calm = job.calm()
        assert job.kill(number=number) == status
        assert job.resume().status == 3
        assert (job.output.read_bytes(), job.lines_of(job.errors)) == calm

    def test_torn_writes(self, job):
        """Whatever the files look like behind the checkpoint."""
        calm = job.calm()
        job.kill(after=0.3)
        written = json.loads(job.checkpoint.read_text())["content"]["written"]
        saved = [path.read_bytes() for path in (job.output, job.errors, job.checkpoint)]
        for torn in (b"", b'{"n": 1', b"\0" * 5000, b"\xff\xfe\n" * 9):
            job.output.write_bytes(saved[0][: written["output_bytes"]] + torn)
            job.errors.write_bytes(saved[1][: written["errors_bytes"]] + torn)
            job.checkpoint.write_bytes(saved[2])
            (job.folder / "output.checkpoint.tmp").write_bytes(saved[2][: len(torn)])
            assert job.resume().status == 3
            assert (job.output.read_bytes(), job.lines_of(job.errors)) == calm

    def test_after_an_error(self, job):
        """The line that ended the run is mended by another setting outside; here, it goes away."""
        flag = job.folder / "once"
        text = job.input.read_text().splitlines()
        text[150] = json.dumps({"n": 999, "do": "raise", "once": str(flag)})
        job.write("\n".join(line for line in text if '"raise"' not in line or "once" in line))
        job.flags = ["--batch-size", 3, "--silent"]
        with job.start() as running:
            assert running.wait() == 1
        assert flag.exists() and 0 < job.bytes_written()
        assert job.resume().status == 0
        resumed = job.output.read_bytes()
        with job.start() as running:
            assert running.wait() == 0
        assert job.output.read_bytes() == resumed

    def test_before_anything_and_when_nothing_is_left(self, job):
        assert job.resume().status == 3  # nothing to resume: an ordinary run
        output = job.output.read_bytes()
        again = job.resume()
        assert again.status == 0 and "already complete" in again.stderr
        assert job.output.read_bytes() == output

    def test_with_the_dataset_reader(self, archive, tmp_path):
        job = Job(archive, tmp_path)
        job.write("".join(f"{n}\n" for n in range(9000)))
        job.flags = ["--batch-size", 3, "--silent", "--use-dataset-reader"]
        with job.start(output=tmp_path / "calm") as running:
            assert running.wait() == 0
        assert job.kill() == -signal.SIGKILL
        assert job.resume().status == 0
        assert job.output.read_bytes() == (tmp_path / "calm").read_bytes()


class TestRefused:
    @pytest.fixture
    def killed(self, job):
        assert job.kill(after=0.2) == -signal.SIGKILL
        return job

    def test_changes(self, killed, tmp_path):
        text = killed.input.read_text()
        killed.input.write_text(text.replace('"n": 200', '"n": 201'))
        assert "another input file" in killed.refuse()
        killed.input.unlink()
        killed.write(text)
        assert killed.resume().status == 3  # the same content at another time

    def test_settings(self, killed):
        killed.flags[1] = 4
        assert "another batching" in killed.refuse()
        killed.flags[1] = 3
        assert "another on_error" in killed.refuse("--on-error", "placeholder")
        assert "another --overrides" in killed.refuse("--overrides", '{"a": 1}')
        threads = {"executor_threads_per_worker": 2}
        assert "another number of threads" in killed.refuse(overrides=threads)
        assert "another --errors-file" in killed.refuse(errors=killed.folder / "other")
        other = faulty_archive(killed.folder / "other archive")
        killed.archive, before = other, killed.archive
        assert "another archive" in killed.refuse()
        killed.archive = before
        assert killed.resume(overrides={"executor_num_workers": 1}).status == 3

    def test_a_changed_output(self, killed):
        content = killed.output.read_bytes()
        killed.output.write_bytes(b"x" + content[:10])
        assert "output has changed" in killed.refuse()
        killed.output.unlink()
        assert "output has changed" in killed.resume().stderr

    def test_changed_errors(self, killed):
        """Some of them are there: the first is that of the sixth input."""
        content = killed.errors.read_bytes()
        assert content
        killed.errors.write_bytes(content.replace(b"ValueError", b"valueerror", 1))
        assert "errors has changed since" in killed.refuse()
        killed.errors.unlink()
        assert "errors has changed since" in killed.refuse()
        killed.errors.write_bytes(content)
        assert killed.resume().status == 3

    def test_a_file_within_the_folder_of_an_archive(self, archive, tmp_path):
        faulty_archive(tmp_path / "archive")
        job = Job(tmp_path / "archive" / "content", tmp_path)
        assert job.kill(after=0.2) == -signal.SIGKILL
        path = job.archive / "vocabulary" / "non_padded_namespaces.txt"
        path.write_text(path.read_text().replace("*", "+", 1))
        message = job.refuse()
        assert "another archive" in message
        assert message.count("vocabulary/non_padded_namespaces.txt") == 2

    def test_a_damaged_checkpoint(self, killed):
        good = killed.checkpoint.read_bytes()
        number = random.Random(3).randrange(len(good))
        other_digit = good.replace(b'"positions": ', b'"positions": 1')
        for bad in (
            b"",
            good[: len(good) // 2],
            good[:number] + b"?" + good[number + 1 :],
            b"[]",
            other_digit,
            b"\xff\x00",
        ):
            killed.checkpoint.write_bytes(bad)
            assert "damaged" in killed.refuse()

    def test_input_or_output_that_cannot_be_resumed(self, job, tmp_path):
        job.input = "-"
        with job.start("--resume") as running:
            assert running.wait() == 1
        assert "--resume needs" in running.stderr and "Traceback" not in running.stderr

    @pytest.mark.parametrize("more", [{"num_workers": 1}, {"allow_stateful_model": True}])
    def test_a_model_that_remembers_late(self, archive, tmp_path, more):
        """What is written by then is right, so one worker can go on; or several, if asked to."""
        job = Job(archive, tmp_path, seconds=0)
        job.flags = ["--batch-size", 3, "--silent"]
        threads = {"executor_threads_per_worker": 1}
        faults = {150: "remember", 200: "remember"}
        job.write("".join(map(as_line, numbered(240, faults))))
        with job.start(overrides=threads) as running:
            assert running.wait() == 1
        assert "for the first time in input lines 151" in running.stderr
        assert "--resume" in running.stderr and "allow_stateful_model" in running.stderr
        assert expected(range(150)).startswith(job.output.read_text())
        more = {f"executor_{key}": value for key, value in more.items()}
        assert job.resume(overrides={**threads, **more}).status == 0
        if "executor_num_workers" in more:
            lines = [json.loads(x) for x in job.output.open() if x.startswith("{")]
            assert [x.get("remembered") for x in lines] == [None] * 150 + [1] * 48 + [2] * 42
        assert job.output.read_text().count("{") == 240

    def test_a_model_that_keeps_state(self, tmp_path):
        job = Job(faulty_archive(tmp_path / "archive", keeps_state=True), tmp_path)
        assert job.kill(number=signal.SIGINT, after=0.2) == 130
        message = job.refuse()
        assert "cannot be resumed" in message and "it writes to seen" in message


class TestTheFile:
    @pytest.fixture
    def checkpoint(self, tmp_path):
        (tmp_path / "output").write_text("some text\n")
        return Checkpoint(str(tmp_path / "output"), Identity({}, {"exact": True}))

    def test_what_is_saved_is_loaded(self, checkpoint, tmp_path):
        written = OutputPosition(5, 4, 3, 1, 9, 0)
        checkpoint.save(written)
        assert checkpoint.load() == written
        checkpoint.remove()
        assert os.listdir(tmp_path) == ["output"]

    def test_a_full_disk_leaves_the_one_before(self, checkpoint, tmp_path):
        checkpoint.save(OutputPosition(1, 1, 1, 0, 4, 0))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        try:
            with pytest.raises(OSError) as caught:
                checkpoint.save(OutputPosition(2, 2, 2, 0, 9, 0))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "cannot write" in caught.value.explanation
        assert checkpoint.load() == OutputPosition(1, 1, 1, 0, 4, 0)
        assert sorted(os.listdir(tmp_path)) == ["output", "output.checkpoint"]

    def test_a_link_in_the_way_is_not_followed(self, checkpoint, tmp_path):
        (tmp_path / "precious").write_text("precious")
        os.symlink(tmp_path / "precious", f"{checkpoint.path}.tmp")
        checkpoint.save(OutputPosition())
        assert (tmp_path / "precious").read_text() == "precious"
        assert checkpoint.load() == OutputPosition()

    def test_each_bit_counts(self, checkpoint):
        written = OutputPosition(5, 4, 3, 1, 9, 77)
        checkpoint.save(written)
        with open(checkpoint.path, "rb") as file:
            content = file.read()
        flips = 0
        for bit in range(8 * len(content)):
            damaged = bytearray(content)
            damaged[bit // 8] ^= 1 << bit % 8
            with open(checkpoint.path, "wb") as file:
                file.write(damaged)
            with pytest.raises(ResumeError, match="damaged"):
                checkpoint.load()
            flips += 1
        print(f"{flips} flipped bits: all are noticed")

    def test_state(self, checkpoint):
        checkpoint.save(OutputPosition(), "it counts")
        with pytest.raises(ResumeError, match="it counts"):
            checkpoint.load()
