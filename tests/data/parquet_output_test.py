"""Parquet outputs: the rules by which lines become a table, and runs that are interrupted."""

import errno
import itertools
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pyarrow
import pytest
from pyarrow import parquet

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data import parquet_output
from allennlp_parallel_predict.data.output_formats import output_class
from allennlp_parallel_predict.data.parquet_output import ConvertedFile
from allennlp_parallel_predict.pipeline.signals import Interrupted
from tests.fixtures import stateful_predictors  # noqa: F401
from tests.pipeline.checkpoint_test import Job
from tests.support.faults import command, expected, faulty_archive, numbered
from tests.support.small_runs import KINDS, FaultyOS, Killed, Place, QuickOS

pytestmark = pytest.mark.timeout(120)


def table_of(folder, lines):
    file = ConvertedFile(str(folder / "out"), pyarrow)
    file.begin()
    file.write("".join(lines).encode())
    file.convert()
    file.remove_lines()
    file.close()
    assert os.listdir(folder) == ["out"]
    return parquet.read_table(folder / "out")


def converted(folder, *objects):
    return table_of(folder, [json.dumps(value) + "\n" for value in objects])


class TestTheRules:
    def test_objects_are_flattened(self, tmp_path):
        found = converted(
            tmp_path, {"a": {"b": 1, "c": {"d": "x"}}, "e": True}, {"e": None, "f": 1.5}, {"e": {}}
        )
        assert found.to_pylist() == [
            {"a.b": 1, "a.c.d": "x", "e": "true", "f": None},
            {"a.b": None, "a.c.d": None, "e": None, "f": 1.5},
            {"a.b": None, "a.c.d": None, "e": "{}", "f": None},
        ]

    @pytest.mark.parametrize(
        "values, type, expected",
        [
            ([1, 2.5, None], "double", [1.0, 2.5, None]),
            ([[1, None], [2.5], []], "list<element: double>", [[1.0, None], [2.5], []]),
            ([[], []], "list<element: null>", [[], []]),
            ([None, None], "null", [None, None]),
            (["ü", None], "string", ["ü", None]),
            ([True, False], "bool", [True, False]),
            ([[[1]], [["x"]]], "large_string", ["[[1]]", '[["x"]]']),
            (["x", 1, None, "1"], "large_string", ['"x"', "1", None, '"1"']),
            ([True, 1.5, 2], "large_string", ["true", "1.5", "2"]),
            ([2**70, 1], "large_string", [str(2**70), "1"]),
            ([2**60 + 1, 1.5], "large_string", [str(2**60 + 1), "1.5"]),
            (["\ud800", "y"], "large_string", ['"\\ud800"', '"y"']),
            ([[{}], [{"a": 1}]], None, [[{"a": None}], [{"a": 1}]]),
            ([[{}], []], "large_string", ["[{}]", "[]"]),
            ([[{"a": 1}], [{"b": "x"}]], None, [[{"a": 1, "b": None}], [{"a": None, "b": "x"}]]),
        ],
    )
    @pytest.mark.parametrize("size", [1, 1 << 20])
    def test_types(self, tmp_path, monkeypatch, values, type, expected, size):
        """In one row group, and each in one of its own: with the same result."""
        monkeypatch.setattr(parquet_output, "_CHARACTERS", size)
        found = converted(tmp_path, *({"x": value} for value in values))
        assert found["x"].to_pylist() == expected
        assert type is None or str(found.schema.field("x").type) == type
        groups = parquet.ParquetFile(tmp_path / "out").num_row_groups
        assert groups == (len(values) if size == 1 else 1)

    def test_what_is_no_object(self, tmp_path):
        lines = ['{"a": 1}\n', "\n", "[2]\n", "the text\n", '{"a.b": 1, "a": {"b": 2}}\n', "{}"]
        found = table_of(tmp_path, lines)
        assert [row["a"] for row in found.to_pylist()] == [1, None, None, None, None]
        assert [text and json.loads(text) for text in found["output"].to_pylist()] == [
            *(None, [2], "the text"),
            *({"a.b": 1, "a": {"b": 2}}, {}),
        ]

    def test_no_rows(self, tmp_path):
        assert table_of(tmp_path, []).num_rows == 0

    def test_memory_does_not_grow_with_the_output(self, tmp_path):
        """96 MB of lines."""
        script = """if True:
            import json, sys, pyarrow, pyarrow.parquet
            from allennlp_parallel_predict.data import parquet_output
            def peak():
                status = open("/proc/self/status").read()
                return int(status.split("VmHWM:")[1].split()[0]) >> 10
            parquet_output._CHARACTERS = 1 << 20
            file = parquet_output.ConvertedFile(sys.argv[1], pyarrow)
            file.begin()
            line = json.dumps({"text": "word " * 6000, "n": [0.5] * 300}).encode() + b"\\n"
            before = peak()
            for _ in range(3000):
                file.write(line)
            file.convert()
            rows = pyarrow.parquet.read_metadata(sys.argv[1]).num_rows
            print(json.dumps([rows, peak() - before]))
        """
        ran = subprocess.run(
            [sys.executable, "-c", script, tmp_path / "out"], stdout=-1, check=True
        )
        rows, megabytes = json.loads(ran.stdout)
        assert (rows, megabytes < 96) == (3000, True)


class TestTheCommand:
    def test_pandas_reads_it(self, archive, tmp_path):
        pandas = pytest.importorskip("pandas")
        predict(archive, tmp_path, numbered(9, {4: "raise"}), "--on-error", "placeholder", status=3)
        frame = pandas.read_parquet(tmp_path / "out.parquet")
        assert list(frame["n"].dropna()) == [n for n in range(9) if n != 4]
        (error,) = frame[frame["error.line"].notna()].to_dict("records")
        assert (error["error.line"], error["error.type"]) == (5, "ValueError")

    def test_the_former_output_stays_until_the_new_one_is_complete(self, archive, tmp_path):
        output = tmp_path / "out.parquet"
        predict(archive, tmp_path, numbered(3))
        before = output.read_bytes()
        ran = predict(archive, tmp_path, numbered(9, {5: "raise"}), status=1)
        assert output.read_bytes() == before
        assert (tmp_path / "out.parquet.lines").read_text() == expected(range(5))
        ran = predict(archive, tmp_path, numbered(9), status=1)
        assert "out.parquet is the output of a run that was interrupted (5 input" in ran.stderr
        predict(archive, tmp_path, numbered(4), "--overwrite")
        assert list(as_written(output)) == without_blank_lines(expected(range(4)))
        predict(archive, tmp_path, numbered(4), "--resume")
        assert not (tmp_path / "out.parquet.lines").exists()

    def test_lines_that_another_run_has_left(self, archive, tmp_path):
        (tmp_path / "out.parquet.lines").write_text("mine")
        ran = predict(archive, tmp_path, numbered(4), status=1)
        assert "out.parquet.lines exists, where the lines for" in ran.stderr.splitlines()[-1]
        assert (tmp_path / "out.parquet.lines").read_text() == "mine"

    def test_behind_a_link(self, archive, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "out.parquet").symlink_to("folder/real")
        predict(archive, tmp_path, numbered(4))
        found = list(as_written(tmp_path / "folder/real"))
        assert found == without_blank_lines(expected(range(4)))
        assert os.listdir(tmp_path / "folder") == ["real"]
        assert (tmp_path / "out.parquet").is_symlink()

    def test_mistakes_are_told_before_the_model_is_loaded(self, tmp_path, monkeypatch):
        """With an archive that takes a minute to load."""
        slow = faulty_archive(tmp_path, loading_fault="sleep")
        for flags, message in (
            (["--output-file", "/dev/null"], "needs an --output-file that is a file"),
            (["--errors-file", tmp_path / "out.parquet.lines"], "is the same file as the lines of"),
        ):
            flags = ["--output-format", "parquet", *flags]
            ran = predict(slow, tmp_path, numbered(1), *flags, status=1)
            assert message in ran.stderr.splitlines()[-1]
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(SettingsError, match=r"pip install 'allennlp-parallel-predict\[parquet"):
            output_class("parquet")


def predict(archive, folder, inputs, *flags, status=0):
    (folder / "input").write_text("".join(json.dumps(line) + "\n" for line in inputs))
    files = ["--output-file", folder / "out.parquet", "--output-format", "auto"]
    with command(archive, folder / "input", *files, "--silent", *flags, folder=folder) as running:
        assert running.wait(25) == status, running.stderr
    return running


def rows(path):
    return parquet.read_table(path).to_pylist()


def as_written(path):
    """The lines of a run, from its table: objects, and texts in a column of their own."""
    for row in rows(path):
        text = row.pop("output", None)
        yield (text if text is not None else json.dumps(row)) + "\n"


def without_blank_lines(text):
    return [line for line in text.splitlines(keepends=True) if not line.isspace()]


class TestInterruptedAndResumed:
    def test_while_it_predicts(self, archive, tmp_path):
        job = Job(archive, tmp_path)
        calm = job.calm()
        job.flags += ["--output-format", "parquet"]
        lines = tmp_path / "output.lines"
        job.bytes_written = lambda: lines.stat().st_size if lines.exists() else 0
        for flags in ([], ["--resume"]):
            assert job.kill(*flags, at_least=job.bytes_written() + 1) == -signal.SIGKILL
            assert not job.output.exists()
        with job.start() as running:
            assert running.wait() == 1
        assert "output of a run that was interrupted" in running.stderr
        assert job.resume().status == 3
        assert list(as_written(job.output)) == without_blank_lines(calm[0].decode())
        assert job.lines_of(job.errors) == calm[1]
        assert not lines.exists() and not job.checkpoint.exists()
        assert "already complete" in job.resume().stderr

    def test_while_the_lines_of_a_stateful_model_are_converted(self, tmp_path, monkeypatch):
        """Nothing is left to predict, so the state that is lost is not needed."""
        archive = faulty_archive(tmp_path, keeps_state=True)

        def full(*names):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(parquet_output, "os", SimpleNamespace(**{**vars(os), "rename": full}))
            ran = predict(archive, tmp_path, numbered(9), status=1)
        last = f"cannot write {tmp_path}/out.parquet: {os.strerror(errno.ENOSPC)}"
        assert ran.stderr.splitlines()[-1].endswith(last)
        assert sorted(path.name for path in tmp_path.glob("out*")) == [
            *("out.parquet.checkpoint", "out.parquet.lines")
        ]
        ran = predict(archive, tmp_path, numbered(9), "--resume")
        found = [row["seen"] for row in rows(tmp_path / "out.parquet") if row["n"] is not None]
        assert found == list(range(1, 10))
        assert [path.name for path in tmp_path.glob("out*")] == ["out.parquet"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_fault_at_every_call(self, tmp_path, kind):
        faults = 0
        for at in itertools.count():
            folder = tmp_path / str(at)
            folder.mkdir()
            place = Place(folder, range(6), on_error="placeholder")
            system = FaultyOS(at, kind)
            try:
                place.run(system, output_format="parquet")
            except (Killed, Interrupted, OSError):
                pass
            if not system.injected:
                break
            faults += 1
            place.run(QuickOS(), resume=True, output_format="parquet")
            texts = [text.strip() for text in place.expected().decode().splitlines()]
            assert list(as_texts(place.output)) == texts
            assert place.errors.read_bytes() == place.expected_errors()
            names = {path.name for path in folder.iterdir()} - {"output.lines"}
            assert names == {"archive", "input", "output", "errors"}
        assert faults > 30


def as_texts(path):
    """What was written, from columns of numbers, texts, and errors."""
    for row in rows(path):
        if row["error.line"] is not None:
            keys = ("line", "type", "message")
            yield json.dumps({"error": {key: row[f"error.{key}"] for key in keys}})
        else:
            yield str(json.loads(row["output"]))
