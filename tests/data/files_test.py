"""No file of the user's is destroyed, and no input is silently not read. Real processes."""

import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.support.faults import command, expected, faulty_archive, numbered, settings, wait_until

pytestmark = pytest.mark.timeout(120)
COUNT = 40
NOBODY = 65534


@pytest.fixture
def place(tmp_path):
    (tmp_path / "input").write_text(lines_of(numbered(COUNT)))
    return tmp_path


def lines_of(inputs):
    return "".join(json.dumps(line) + "\n" for line in inputs)


def run(archive, place, *flags, source="input", status=0, **more):
    flags = ["--silent", "--num-workers", 2, *flags]
    source = source if str(source).startswith(("/", "-")) else place / source
    with command(archive, source, *flags, folder=place, **more) as running:
        assert running.wait() == status, running.stderr
    assert "Traceback" not in running.stderr
    return running


def content(place, *names):
    return {name: (place / name).read_bytes() for name in names}


class TestOneFileForTwo:
    @pytest.fixture
    def linked(self, place):
        os.symlink("input", place / "soft")
        os.link(place / "input", place / "hard")
        (place / "sub").mkdir()
        (place / "config").write_text("{}")
        return place

    @pytest.mark.parametrize("output", ["input", "soft", "hard", "sub/../input"])
    def test_the_output_is_the_input(self, archive, linked, output):
        before = content(linked, "input")
        ran = run(archive, linked, "--output-file", linked / output, status=1)
        assert content(linked, "input") == before
        assert "is the same file as the input" in ran.stderr

    def test_standard_input(self, archive, linked):
        before = content(linked, "input")
        with open(linked / "input") as stdin:
            flags = ["--output-file", linked / "input"]
            run(archive, linked, *flags, source="-", status=1, stdin=stdin.fileno())
        assert content(linked, "input") == before

    @pytest.mark.parametrize(
        "flags",
        [
            ["--output-file", "new", "--errors-file", "hard"],
            ["--output-file", "new", "--errors-file", "new"],
            ["--output-file", "new", "--errors-file", "sub/../new"],
            ["--output-file", "new", "--errors-file", "new.checkpoint"],
            ["--output-file", "new", "--profile", "input.json"],
            ["--output-file", "new", "--profile-trace", "input.json"],
            ["--output-file", "new", "--profile-plot", "input.svg"],
            ["--output-file", "config", "--parallel-config", "config"],
        ],
        ids=" ".join,
    )
    def test_other_files(self, archive, linked, flags):
        for name in ("input.json", "input.svg"):
            os.link(linked / "input", linked / name)
        before = content(linked, "input", "config")
        flags = [flag if flag.startswith("--") else linked / flag for flag in flags]
        ran = run(archive, linked, *flags, status=1)
        assert "is the same file as" in ran.stderr
        assert content(linked, "input", "config") == before
        assert not (linked / "new").exists()

    def test_the_archive(self, archive, place):
        before = archive.read_bytes()
        run(archive, place, "--output-file", archive, status=1)
        assert archive.read_bytes() == before

    def test_a_checkpoint_that_would_be_the_input(self, archive, place):
        os.rename(place / "input", place / "output.checkpoint")
        flags = ["--output-file", place / "output", "--overwrite"]
        run(archive, place, *flags, source="output.checkpoint", status=1)
        assert (place / "output.checkpoint").read_text() == lines_of(numbered(COUNT))

    def test_devices_may_be_the_same(self, archive, place):
        run(archive, place, "--output-file", "/dev/null", "--errors-file", "/dev/null")


class TestWhatCanBeReadOnce:
    @pytest.mark.parametrize("way", ["fifo", "/dev/stdin", "/dev/fd/N"])
    def test_all_of_it_is_read(self, archive, place, way):
        # A program that writes, as behind `<(cat input)`: a thread's end of the pipe would be
        # inherited by the command.
        reading = None
        if way == "fifo":
            os.mkfifo(place / "fifo")
            source = place / "fifo"
            writer = subprocess.Popen(f"cat {place}/input > {source}", shell=True)
        else:
            writer = subprocess.Popen(["cat", place / "input"], stdout=subprocess.PIPE)
            reading = os.dup(writer.stdout.fileno())
            writer.stdout.close()
            source = way.replace("N", str(reading))
        flags = ["--output-file", place / "output", "--num-workers", 2, "--silent"]
        flags += ["--progress", "always"]
        with command(archive, source, *flags, folder=place, stdin=reading) as running:
            assert running.wait(30) == 0, running.stderr
        assert writer.wait() == 0
        if reading is not None:
            os.close(reading)
        assert (place / "output").read_text() == expected(range(COUNT))
        assert not (place / "output.checkpoint").exists()

    @pytest.mark.parametrize("flags", [["--resume"], ["--shard", "1/2"]], ids=" ".join)
    def test_it_cannot_be_read_again(self, archive, place, flags):
        os.mkfifo(place / "fifo")
        ran = run(
            archive, place, "--output-file", place / "output", *flags, source="fifo", status=1
        )
        assert f"{flags[0]} needs an input" in ran.stderr
        assert not (place / "output").exists()


class TestAnInterruptedRun:
    @pytest.fixture
    def interrupted(self, archive, place):
        flags = ["--output-file", place / "output", *settings(checkpoint_interval=0.05)]
        lines = numbered(COUNT, {n: {"do": "sleep", "seconds": 0.1} for n in range(COUNT)})
        (place / "input").write_text(lines_of(lines))
        with command(archive, place / "input", "--silent", *flags, folder=place) as running:
            wait_until(lambda: (place / "output").exists() and (place / "output").stat().st_size)
            running.signal(signal.SIGINT)
            assert running.wait() == 130
        return place

    def test_is_not_overwritten_by_mistake(self, archive, interrupted):
        flags = ["--output-file", interrupted / "output"]
        before = content(interrupted, "output", "output.checkpoint")
        ran = run(archive, interrupted, *flags, status=1)
        written = json.loads(before["output.checkpoint"])["content"]["written"]
        assert f"{written['lines']} input lines are finished" in ran.stderr
        assert "--resume" in ran.stderr and "--overwrite" in ran.stderr
        assert content(interrupted, "output", "output.checkpoint") == before
        run(archive, interrupted, *flags, "--resume", "--overwrite", status=1)
        assert content(interrupted, "output", "output.checkpoint") == before
        run(archive, interrupted, *flags, "--overwrite")
        assert (interrupted / "output").read_text() == expected(range(COUNT))
        assert not (interrupted / "output.checkpoint").exists()

    def test_nor_by_one_with_an_input_that_keeps_no_checkpoint(self, archive, interrupted):
        flags = ["--output-file", interrupted / "output"]
        before = content(interrupted, "output")
        run(archive, interrupted, *flags, source="-", status=1)
        assert content(interrupted, "output") == before
        run(archive, interrupted, *flags, "--overwrite", source="-")
        assert os.listdir(interrupted).count("output.checkpoint") == 0

    def test_a_copied_input_and_archive(self, archive, interrupted):
        moment = time.time() - 1e6
        for path in (interrupted / "input", archive):
            os.utime(path, (moment, moment))
        flags = ["--output-file", interrupted / "output", "--resume"]
        run(archive, interrupted, *flags, "--num-workers", 2)
        assert (interrupted / "output").read_text() == expected(range(COUNT))

    def test_another_input_of_the_same_length(self, archive, interrupted):
        text = (interrupted / "input").read_text()
        size = f"{len(text):,} bytes of "
        (interrupted / "input").write_text(text.replace('"n": 20', '"n": 21'))
        flags = ["--output-file", interrupted / "output", "--resume"]
        ran = run(archive, interrupted, *flags, status=1)
        assert ran.stderr.count(size) == 2 and " then, " in ran.stderr and " now)" in ran.stderr


class TestTwoRuns:
    def test_the_second_is_refused(self, archive, place):
        lines = numbered(COUNT, {n: {"do": "sleep", "seconds": 0.1} for n in range(COUNT)})
        (place / "input").write_text(lines_of(lines))
        (place / "other").mkdir()
        flags = ["--silent", "--output-file", place / "output", "--num-workers", 2]
        flags += ["--errors-file", place / "errors", *settings(checkpoint_interval=0.05)]
        with command(archive, place / "input", *flags, folder=place) as first:
            wait_until(lambda: (place / "output").exists() and (place / "output").stat().st_size)
            os.kill(first.pid, signal.SIGSTOP)  # it is not to end before the others are refused
            for more in ([], ["--resume"], ["--overwrite"], ["--output-file", place / "another"]):
                arguments = [*flags, *more]
                with command(
                    archive, place / "input", *arguments, folder=place / "other"
                ) as second:
                    assert second.wait() == 1
                assert f"another run (process {first.pid})" in second.stderr
            os.kill(first.pid, signal.SIGCONT)
            assert first.wait() == 0, first.stderr
        assert (place / "output").read_text() == expected(range(COUNT))

    def test_who_else_writes_is_noticed(self, archive, place):
        lines = numbered(COUNT, {n: {"do": "sleep", "seconds": 0.1} for n in range(COUNT)})
        (place / "input").write_text(lines_of(lines))
        flags = ["--silent", "--output-file", place / "output", "--num-workers", 2]
        flags += settings(checkpoint_interval=0.05)
        with command(archive, place / "input", *flags, folder=place) as running:
            wait_until(lambda: (place / "output").exists() and (place / "output").stat().st_size)
            with open(place / "output", "a") as file:
                file.write("x" * 100_000)
            assert running.wait() == 1
        assert "something else writes to it" in running.stderr


class TestAReaderThatDoesNotRead:
    @pytest.mark.parametrize("numbers", ["TERM TERM", "INT TERM", "TERM INT", "INT INT"])
    @pytest.mark.parametrize("to", ["output", "console"])
    def test_the_second_signal_ends_the_command(self, archive, place, numbers, to):
        (place / "input").write_text(lines_of(numbered(2000, {n: {"pad": 500} for n in range(99)})))
        os.mkfifo(place / "fifo")
        reader = os.open(place / "fifo", os.O_RDONLY | os.O_NONBLOCK)
        writer = os.open(place / "fifo", os.O_WRONLY | os.O_NONBLOCK)
        arguments = ["--num-workers", 2]
        if to == "output":
            arguments += ["--silent", "--output-file", place / "fifo"]
        else:
            os.symlink("fifo", place / "stdout")
        with command(archive, place / "input", *arguments, folder=place) as running:
            # Nothing fits into the pipe. How many bytes that are depends on how they are divided.
            wait_until(lambda: not select.select([], [writer], [], 0)[1])
            first, second = (signal.Signals[f"SIG{name}"] for name in numbers.split())
            running.signal(first)
            time.sleep(0.3)
            if not running.has_ended():
                running.signal(second)
            assert running.wait(5) in (128 + first, 128 + second)
        os.close(reader)
        os.close(writer)


def test_the_lock_is_nobody_elses(place):
    """A program that outlives the run (a grandchild of a worker, say) does not hold the output."""
    from allennlp_parallel_predict.data.files import OutputFile

    output = OutputFile(str(place / "output"))
    output.begin()
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    output.close()
    again = OutputFile(str(place / "output"))
    again.close()
    child.kill()
    child.wait()


class TestMistakesAreToldEarly:
    """With an archive that takes a minute to load."""

    @pytest.fixture(scope="class")
    def slow_archive(self, tmp_path_factory):
        return faulty_archive(tmp_path_factory.mktemp("archive"), loading_fault="sleep")

    @pytest.mark.parametrize(
        "flags, source, message",
        [
            (["--output-file", "output"], "missing", "cannot read the input file: "),
            (["--output-file", "output"], "folder", "cannot read the input file: "),
            (["--output-file", "no/output"], "input", "there is no folder "),
            (["--errors-file", "no/errors"], "input", "there is no folder "),
            (["--output-file", "folder"], "input", "it is a folder"),
            (["--output-file", "output", "--predictor", "nobody"], "input", "nobody"),
            (["--output-file", "output", "--resume", "--overwrite"], "input", "not both"),
            (["--resume"], "input", "--resume needs an --output-file"),
        ],
        ids=str,
    )
    def test_one_sentence(self, slow_archive, place, flags, source, message):
        (place / "folder").mkdir()
        flags = [place / flag if flag[0] in "onfe" and flag != "nobody" else flag for flag in flags]
        more = ["--num-workers", 2, *flags]
        with command(slow_archive, place / source, *more, folder=place) as running:
            assert running.wait(25) == 1
        last = running.stderr.splitlines()[-1]
        assert last.startswith("allennlp parallel-predict: error: ") and message in last
        assert "Traceback" not in running.stderr

    @pytest.mark.parametrize(
        "flag, name, message",
        [
            ("--output-file", "closed/new", "cannot write {}: you have no permission to write to"),
            ("--output-file", "closed/old", "cannot write {}.checkpoint: you have no permission"),
            ("--output-file", "mine", "cannot write {}: you have no permission to write to it"),
            ("--errors-file", "closed/new", "cannot write {}: you have no permission"),
            ("--summary", "mine", "cannot write {}: you have no permission to write to it"),
        ],
    )
    def test_what_may_not_be_written(self, slow_archive, flag, name, message):
        """As another user, if this one is root, who may write everything."""
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            (place / "closed").mkdir()
            (place / "closed" / "old").touch(0o666)
            (place / "mine").write_text("of somebody else\n")
            (place / "input").write_text(lines_of(numbered(COUNT)))
            shutil.copy(slow_archive, place / "archive.tar.gz")
            for path, mode in (("", 0o777), ("closed", 0o555), ("closed/old", 0o666)):
                (place / path).chmod(mode)
            (place / "mine").chmod(0o444)
            flags = ["--num-workers", 2, "--silent", flag, place / name]
            if flag != "--output-file":
                flags += ["--output-file", place / "output"]
            before = sorted(place.rglob("*"))
            with command(
                place / "archive.tar.gz", place / "input", *flags, folder=place, user=NOBODY
            ) as running:
                assert running.wait(25) == 1
                said = running.stderr
            last = said.splitlines()[-1]
            assert message.format(place / name) in last and "Traceback" not in said
            new = {path.name for path in place.rglob("*")} - {path.name for path in before}
            assert new == {"stdout", "stderr"}
            assert (place / "mine").read_text() == "of somebody else\n"
            (place / "closed").chmod(0o777)

    def test_a_run_that_has_nowhere_to_write(self, slow_archive, place):
        with command(slow_archive, place / "input", "--silent", folder=place) as running:
            assert running.wait(25) == 0
        assert "no output will be created" in running.stdout

    def test_after_the_input_was_missing_the_run_is_not_complete(self, archive, place):
        """`predict` leaves an empty output then, and so do we."""
        flags = ["--output-file", place / "output"]
        run(archive, place, *flags, source="missing", status=1)
        assert (place / "output").read_bytes() == b""
        os.rename(place / "input", place / "missing")
        run(archive, place, *flags, "--resume", source="missing")
        assert (place / "output").read_text() == expected(range(COUNT))

    def test_the_output_of_the_last_run_stays(self, slow_archive, place):
        (place / "output").write_text("of the last run\n")
        flags = ["--output-file", place / "output"]
        with command(slow_archive, place / "missing", *flags, folder=place) as running:
            assert running.wait(25) == 1
        assert (place / "output").read_text() == "of the last run\n"
