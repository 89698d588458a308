"""`--retry`: what failed is predicted again, and the files are those of a run without a failure."""

import gzip
import json
import os
import signal

import pytest
import zstandard
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.errors import ResumeError
from allennlp_parallel_predict.pipeline import retry
from tests.fixtures.faulty_predictors import FaultyPredictor
from tests.support.faults import (
    as_line,
    command,
    expected,
    faulty_archive,
    numbered,
    settings,
    wait_until,
)
from tests.support.running import allennlp

pytestmark = pytest.mark.timeout(120)
FAILING = (0, 3, 4, 17, 18, 19, 39)


class Files:
    """A run of which some inputs failed; the fault of each is there once, or for good."""

    def __init__(self, archive, folder, on_error, *flags, for_good=()):
        self.archive, self.folder = archive, folder
        self.output, self.errors, self.input = (folder / n for n in ("out", "errors", "in"))
        once = {n: {"do": "raise", "once": str(folder / f"once{n}")} for n in FAILING}
        once.update({n: {"do": "raise"} for n in for_good})
        self.lines = [as_line(line) for line in numbered(40, once)]
        self.input.write_text("".join(self.lines[:10]) + "\n \n" + "".join(self.lines[10:]))
        self.flags = ["--on-error", on_error, "--output-file", self.output, *flags]
        self.run("--errors-file", self.errors, status=3)

    def run(self, *flags, status=0):
        flags = [*self.flags, "--silent", *flags]
        with command(self.archive, self.input, *flags, folder=self.folder) as ran:
            assert ran.wait() == status, ran.stderr
        return ran

    def retry(self, *flags, status=0):
        return self.run("--retry", self.errors, *flags, status=status)

    def contents(self):
        return self.output.read_bytes(), self.errors.read_bytes()

    def leftover(self):
        return [p.name for p in self.folder.iterdir() if "retry" in p.name or "check" in p.name]


@pytest.fixture(params=["skip", "placeholder"])
def on_error(request):
    return request.param


OWN_DUMP_LINE = FaultyPredictor.dump_line


@pytest.fixture(autouse=True)
def one_line_each(monkeypatch):
    """Outputs of no line, or of two, are for the tests that say so."""
    monkeypatch.setattr(FaultyPredictor, "dump_line", Predictor.dump_line)


def test_the_output_is_that_of_a_run_without_a_failure(archive, tmp_path, on_error):
    files = Files(archive, tmp_path, on_error)
    assert files.output.read_text() != expected(range(40))
    ran = files.retry("--num-workers", 2, "--summary", tmp_path / "summary")
    assert files.output.read_text() == expected(range(40))
    assert (files.errors.read_bytes(), files.leftover()) == (b"", [])
    assert "parallel-predict: 7 lines in " in ran.stderr
    summary = json.loads((tmp_path / "summary").read_text())
    assert (summary["lines"], summary["failures"]) == (7, 0)
    before = files.contents()
    assert "nothing to do" in files.retry().stderr
    assert files.contents() == before


def test_what_fails_again_stays_where_it_was(archive, tmp_path, on_error):
    files = Files(archive, tmp_path, on_error, for_good=(3, 25, 39))
    ran = files.retry(status=3)
    assert "3 failed" in ran.stderr
    failing = [json.loads(line)["line"] for line in files.errors.read_text().splitlines()]
    assert failing == [4, 28, 42]  # with two blank lines after the tenth
    lines = files.output.read_text().splitlines(True)
    if on_error == "placeholder":
        assert [n for n, line in enumerate(lines) if line.startswith('{"error"')] == [3, 25, 39]
        lines = [line for line in lines if not line.startswith('{"error"')]
    assert "".join(lines) == expected(n for n in range(40) if n not in (3, 25, 39))
    before = files.contents()
    files.retry(status=3)
    assert files.contents() == before


@pytest.mark.parametrize("format, module", [("gz", gzip), ("zst", zstandard)])
def test_compressed_output(archive, tmp_path, format, module):
    files = Files(archive, tmp_path, "skip", "--output-format", format)
    files.retry()
    with module.open(files.output, "rb") as output:
        assert output.read().decode() == expected(range(40))


def test_outputs_of_several_lines(archive, tmp_path, monkeypatch):
    """By their placeholders the places are known, else they are not."""
    monkeypatch.setattr(FaultyPredictor, "dump_line", OWN_DUMP_LINE)
    (tmp_path / "p").mkdir()
    files = Files(archive, tmp_path / "p", "placeholder")
    files.retry()
    assert files.output.read_text() == expected(range(40))
    files = Files(archive, tmp_path, "skip")
    before = files.contents()
    ran = files.retry(status=1)
    assert "it cannot be said where the results belong" in ran.stderr.splitlines()[-1]
    assert (files.contents(), files.leftover()) == (before, [])


def test_outputs_that_only_seem_to_be_of_one_line(archive, tmp_path, monkeypatch):
    """There are as many lines as inputs, as one has none and one has two."""
    monkeypatch.setattr(FaultyPredictor, "dump_line", OWN_DUMP_LINE)
    files = Files(archive, tmp_path, "skip")
    lines = files.output.read_text().splitlines(keepends=True)
    assert len(lines) > 33
    files.output.write_text("".join(lines[:33]))  # 40 inputs, of which 7 failed
    before = files.contents()
    ran = files.retry(status=1)
    assert "has a dump_line of its own" in ran.stderr.splitlines()[-1]
    assert (files.contents(), files.leftover()) == (before, [])


def test_identical_lines(archive, tmp_path, on_error):
    """Of those that failed together, each gets its result."""
    files = Files(archive, tmp_path, on_error)
    files.input.write_text("".join(files.lines * 2))
    for once in tmp_path.glob("once*"):
        once.unlink()
    files.flags.append("--deduplicate")
    files.run("--errors-file", files.errors, status=3)
    assert len(files.errors.read_text().splitlines()) == 2 * len(FAILING)
    ran = files.retry("--summary", tmp_path / "summary")
    assert "7 identical to others" in ran.stderr
    assert json.loads((tmp_path / "summary").read_text())["deduplicated"] == 7
    assert files.output.read_text() == expected([*range(40)] * 2)


def test_plain_lines_whatever_their_name(archive, tmp_path, on_error):
    files = Files(archive, tmp_path, on_error, "--output-file", tmp_path / "out.gz")
    files.output = tmp_path / "out.gz"
    files.retry()
    assert files.output.read_text() == expected(range(40))
    ran = files.run("--output-format", "gz", "--retry", tmp_path / "errors")
    assert "nothing to do" in ran.stderr


def test_another_run_meanwhile(archive, tmp_path):
    """The files stay those of the first as long as it goes on, also when it has read them."""
    files = Files(archive, tmp_path, "skip")
    slow = {"n": 3, "do": "sleep", "seconds": 1000, "once": str(tmp_path / "sleeps")}
    for path, encode in ((files.input, str), (files.errors, json.dumps)):
        old, new = encode(files.lines[3].rstrip()), encode(json.dumps(slow))
        path.write_text(path.read_text().replace(old, new))
    (tmp_path / "second").mkdir()
    flags = [*files.flags, "--silent"]
    retrying = [*flags, "--retry", files.errors, *settings(executor_num_workers=1)]
    with command(archive, files.input, *retrying, folder=tmp_path) as first:
        wait_until(lambda: (tmp_path / "sleeps").exists())
        others = ["--retry", files.errors], ["--overwrite"]
        for other in (*others, ["--output-file", tmp_path / "x", "--errors-file", files.errors]):
            more = [*flags, *other]
            with command(archive, files.input, *more, folder=tmp_path / "second") as second:
                assert second.wait() == 1
            assert "is being written by another run" in second.stderr.splitlines()[-1]
        first.workers()[0].kill()  # the input is tried again, and then does not sleep
        assert first.wait() == 0, first.stderr
    assert files.output.read_text() == expected(range(40))


def test_raise_and_interrupts_change_nothing(archive, tmp_path, on_error):
    files = Files(archive, tmp_path, on_error, for_good=(25,))
    before = files.contents()
    ran = files.retry("--on-error", "raise", status=1)
    assert "input line 28" in ran.stderr
    assert (files.contents(), files.leftover()) == (before, [])
    os.unlink(tmp_path / "once3")
    lines = [*files.lines]
    lines[3] = as_line({"n": 3, "do": "hang", "once": str(tmp_path / "hangs")})
    files.input.write_text("".join(lines[:10]) + "\n\n" + "".join(lines[10:]))
    records = [json.loads(line) for line in files.errors.read_text().splitlines()]
    records[1]["input"] = lines[3].rstrip()
    files.errors.write_text("".join(map(as_line, records)))
    before = files.contents()
    flags = [*files.flags, "--silent", "--retry", files.errors]
    with command(archive, files.input, *flags, folder=tmp_path) as ran:
        wait_until(lambda: (tmp_path / "hangs").exists())
        ran.signal(signal.SIGINT)
        assert ran.wait() == 130
    assert (files.contents(), files.leftover()) == (before, [])


@pytest.mark.parametrize("at", range(5))
def test_a_crash_at_any_change_of_a_folder(archive, tmp_path, monkeypatch, at):
    """Killed before the n-th renaming or removal, the same command makes it complete."""
    files = Files(archive, tmp_path, "skip", for_good=(25,))
    files.output.chmod(0o600)
    with monkeypatch.context() as patched:
        done = []

        def killing(function):
            def call(*arguments, **more):
                done.extend([function] * str(arguments[0]).startswith(str(tmp_path)))
                if len(done) > at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments, **more)

            return call

        patched.setattr(retry.os, "replace", killing(os.replace))
        patched.setattr(retry.os, "unlink", killing(os.unlink))
        flags = [*files.flags, "--silent", "--retry", files.errors]
        with command(archive, files.input, *flags, folder=tmp_path) as ran:
            status = ran.wait()
    assert status == (-signal.SIGKILL if at < 4 else 3)
    files.retry(status=3)
    assert files.output.read_text() == expected(n for n in range(40) if n != 25)
    assert [json.loads(line)["line"] for line in files.errors.read_text().splitlines()] == [28]
    assert files.leftover() == []
    assert files.output.stat().st_mode & 0o777 == 0o600


def test_what_another_run_wrote_since_stays(archive, tmp_path):
    """The errors of a retry that was interrupted, but the output is a newer one's."""
    files = Files(archive, tmp_path, "skip")
    (tmp_path / "errors.retry").write_text("")
    os.utime(tmp_path / "errors.retry", (1, 1))
    files.retry()
    assert files.output.read_text() == expected(range(40))


class TestRefused:
    @pytest.fixture(scope="class")
    def files(self, archive, tmp_path_factory):
        """With an archive that cannot be loaded: all of this is said before."""
        files = Files(archive, tmp_path_factory.mktemp("refused"), "skip")
        files.archive = files.folder / "damaged.tar.gz"
        files.archive.write_bytes(b"damaged")
        return files

    def check(self, files, message, *flags, on_error="skip"):
        before = files.contents()
        ran = files.retry("--on-error", on_error, *flags, status=1)
        assert message in ran.stderr.splitlines()[-1]
        assert (files.contents(), files.leftover()) == (before, [])

    @pytest.mark.parametrize(
        "flags", [["--resume"], ["--overwrite"], ["--dry-run"], ["--shard", "1/2"]]
    )
    def test_other_flags(self, files, flags):
        self.check(files, "not both", *flags)

    def test_what_is_not_read_twice(self, files):
        self.check(files, "needs an output of lines", "--output-format", "parquet")
        flags = [*files.flags, "--retry", files.errors]
        with command(files.archive, "-", *flags, folder=files.folder) as ran:
            assert ran.wait() == 1
        assert "and the input file of the run" in ran.stderr.splitlines()[-1]

    def test_another_way_to_treat_errors(self, files):
        self.check(files, "with --on-error skip: give that", on_error="placeholder")

    def test_no_output(self, files):
        self.check(files, "--retry needs the --output-file", "--output-file", "missing")

    def test_no_errors_file(self, files):
        (files.folder / "other").write_text('{"line": 1}\n')
        self.check(files, "is no file of errors: its line 1", "--retry", files.folder / "other")
        self.check(files, "the same file as the input", "--retry", files.input)
        self.check(files, "cannot read the file of --retry", "--retry", files.folder / "no")

    def test_another_input(self, files):
        content = files.input.read_text()
        for other, message in (
            (content[content.index("\n") + 1 :], "input line 1 is not what failed"),
            ("".join(files.lines[:4]), "the last is line 42"),
        ):
            files.input.write_text(other)
            self.check(files, message)
        files.input.write_text(content)

    def test_another_output(self, files):
        content = files.output.read_text()
        files.output.write_text(content + content)
        self.check(files, "it cannot be said where the results belong")
        record = json.loads(files.errors.read_text().splitlines()[0])
        error = {key: record[key] for key in ("line", "type", "message")}
        files.output.write_text(as_line({"error": error}))
        self.check(files, "placeholders for 1 of the 7 inputs")
        files.output.write_text(content)

    def test_an_unfinished_run(self, files):
        (files.folder / "out.checkpoint").write_text("{}")
        ran = files.retry(status=1)
        assert "--resume" in ran.stderr.splitlines()[-1]
        os.unlink(files.folder / "out.checkpoint")


def test_a_model_that_keeps_state(archive, tmp_path):
    stateful = faulty_archive(tmp_path, keeps_state=True)
    files = Files(stateful, tmp_path, "skip", *settings(executor_num_workers=1))
    before = files.contents()
    assert "start the whole run again" in files.retry(status=1).stderr.splitlines()[-1]
    assert (files.contents(), files.leftover()) == (before, [])


def test_a_predictor_that_numbers_its_inputs(archives, tmp_path):
    line = '{"passage": "Mary left .", "question": "Who left?"}'
    record = {"line": 1, "input": line, "type": "ValueError", "message": "no"}
    (tmp_path / "in").write_text(line + "\n")
    (tmp_path / "out").write_text("")
    (tmp_path / "errors").write_text(as_line(record))
    flags = ["--output-file", tmp_path / "out", "--retry", tmp_path / "errors", "--silent"]
    with pytest.raises(ResumeError, match="numbers its inputs"):
        command_line = ["parallel-predict", archives("transformer_qa"), tmp_path / "in", *flags]
        allennlp(list(map(str, command_line)))
    assert (tmp_path / "errors").read_text() == as_line(record)
