"""Plain text, CSV, TSV and compressed files, written by other tools."""

import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data.formats import Format, FormattedSource, format_by_name
from allennlp_parallel_predict.data.inputs import InvalidInput
from tests.fixtures import join_predictors  # noqa: F401  (registers them)
from tests.support.faults import command, settings, wait_until
from tests.support.tables import as_records, read, write

pytestmark = pytest.mark.timeout(90)


class TestTables:
    @pytest.mark.parametrize(
        "name, dialect", [("csv", "excel"), ("csv", "unix"), ("tsv", "excel-tab")]
    )
    def test_what_pythons_csv_writes(self, tmp_path, name, dialect):
        write(tmp_path / "in", dialect=dialect)
        found = read(tmp_path / "in", name)
        assert [record for _, _, record in found] == as_records()
        # The third row has line ends in it, so that those after it are further down.
        assert [number for _, number, _ in found] == [2, 3, 6 + 1, 7 + 1]
        assert read(tmp_path / "in", name, first=2) == found[2:]

    def test_what_the_shell_writes(self, tmp_path):
        script = "printf 'b,a\\n1,x y\\n\\n2,z\\n' > in.csv; paste -d '\\t' - - > in.tsv"
        subprocess.run(script, shell=True, cwd=tmp_path, input=b"a\n1\nb\n2\n", check=True)
        assert read(tmp_path / "in.csv", "csv") == [
            (0, 2, {"b": "1", "a": "x y"}),
            (1, 4, {"b": "2", "a": "z"}),
        ]
        assert read(tmp_path / "in.tsv", "tsv", "", ["k", "v"]) == [
            (0, 1, {"k": "a", "v": "1"}),
            (1, 2, {"k": "b", "v": "2"}),
        ]

    def test_a_byte_order_mark(self, tmp_path):
        (tmp_path / "in").write_text("\ufeffa,b\n1,2\n", encoding="utf-8")
        assert read(tmp_path / "in", "csv") == [(0, 2, {"a": "1", "b": "2"})]

    @pytest.mark.parametrize(
        "text, message",
        [
            ("a,a\n1,2\n", "has a name twice: a, a"),
            ('"a"b\n1,2\n', "input line 1 does not begin a row"),
        ],
    )
    def test_a_header_that_is_none(self, tmp_path, text, message):
        (tmp_path / "in").write_text(text)
        with pytest.raises(SettingsError, match=message):
            read(tmp_path / "in", "csv")

    @pytest.mark.parametrize(
        "row, message",
        [
            ("1,2,3\n", "input line 3 has 3 fields, and not 2 (a, b)"),
            ("1\n", "input line 3 has 1 fields, and not 2 (a, b)"),
            ('"1"2,3\n', "input line 3 does not begin a row of a table: "),
        ],
    )
    def test_a_row_that_is_none_is_one_invalid_input(self, tmp_path, row, message):
        (tmp_path / "in").write_text(f"a,b\n0,0\n{row}4,4\n")
        first, bad, last = FormattedSource(str(tmp_path / "in"), Format("csv"))
        assert [first.value, last.value] == ['{"a": "0", "b": "0"}\n', '{"a": "4", "b": "4"}\n']
        assert isinstance(bad.value, InvalidInput) and bad.value == row
        assert bad.value.problem.startswith(message)
        assert [item.line_number for item in (first, bad, last)] == [2, 3, 4]

    def test_a_quote_without_its_end(self, tmp_path):
        (tmp_path / "in").write_text('a,b\n1,2\n1,"2\n3,4\n')
        _, bad = FormattedSource(str(tmp_path / "in"), Format("csv"))
        assert bad.value == '1,"2\n3,4\n' and "line 3 does not begin a row" in bad.value.problem

    def test_a_pipe_gives_what_is_there_and_does_not_wait(self, monkeypatch):
        reading, writing = os.pipe()
        with open(reading) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            items = iter(FormattedSource("-", Format("csv")))
            assert next(items) is None
            os.write(writing, b'a,b\n1,"x\n')
            assert [next(items), next(items)] == [None, None]
            os.write(writing, b'y"\n2,')
            assert json.loads(next(items).value) == {"a": "1", "b": "x\ny"}
            assert next(items) is None
            os.close(writing)
            with pytest.raises(StopIteration):
                assert json.loads(next(items).value) == {"a": "2", "b": ""}
                next(items)


def test_plain_text(tmp_path):
    (tmp_path / "in").write_bytes('\ufeffÜ "x"\r\n\n{"a": 1}\n'.encode() + b"\xff")
    texts = ['Ü "x"', '{"a": 1}', "\udcff"]
    found = read(tmp_path / "in", "text", "passage")
    assert found == [(n, line, {"passage": t}) for n, line, t in zip(range(3), (1, 3, 4), texts)]
    source = FormattedSource(str(tmp_path / "in"), Format("text"))
    assert source.encoding == "UTF-8" and source.total() == 3
    assert "\udcff" in list(source)[2].value  # which is how a worker knows of it


class TestTheName:
    predictor = SimpleNamespace(load_line=Predictor.load_line.__get__(object()))

    @pytest.mark.parametrize(
        "name, format",
        [
            ("a.csv", "csv"),
            ("a.tsv", "tsv"),
            ("a.txt", "lines"),
            ("a.jsonl", "lines"),
            ("a", "lines"),
        ],
    )
    def test_of_the_file(self, tmp_path, name, format):
        (tmp_path / name).write_text("a\tb\n")
        assert format_by_name(str(tmp_path / name), self.predictor) == format

    def test_does_not_change_what_predict_can_read(self, tmp_path):
        (tmp_path / "a.csv").write_text("\n" + '{"a": 1}\n')
        assert format_by_name(str(tmp_path / "a.csv"), self.predictor) == "lines"
        (tmp_path / "a.csv").write_text("a,b\n")
        own = SimpleNamespace(load_line=lambda line: {"sentence": line})
        assert format_by_name(str(tmp_path / "a.csv"), own) == "lines"


class TestTheCommand:
    def run(self, archive, source, folder, *flags, status=0):
        flags = ["--predictor", "texts", "--output-file", folder / "out", "--silent", *flags]
        with command(archive, source, *flags, folder=folder) as ran:
            assert ran.wait() == status, ran.stderr
        return ran.stderr

    def outputs(self, folder):
        return [json.loads(line) for line in (folder / "out").read_text().splitlines()]

    def test_by_the_name(self, archive, tmp_path):
        write(tmp_path / "in.csv")
        subprocess.run(["gzip", str(tmp_path / "in.csv")], check=True)
        flags = ["--keep-input", "--num-workers", 2, "--batch-size", 2]
        self.run(archive, tmp_path / "in.csv.gz", tmp_path, *flags)
        assert [output["input"] for output in self.outputs(tmp_path)] == as_records()

    def test_text(self, archive, tmp_path):
        (tmp_path / "in.txt").write_text("one\ntwo\n")
        flags = ["--input-format", "text", "--text-field", "text"]
        self.run(archive, tmp_path / "in.txt", tmp_path, *flags)
        assert self.outputs(tmp_path) == [{"text": "one"}, {"text": "two"}]

    @pytest.mark.parametrize("on_error", ["raise", "skip", "placeholder"])
    def test_a_row_that_is_none(self, archive, tmp_path, on_error):
        (tmp_path / "in.csv").write_text("id,text\n1,one\n2,two,2\n3,three\n")
        flags = ["--on-error", on_error, "--errors-file", tmp_path / "errors", "--num-workers", 2]
        status = 1 if on_error == "raise" else 3
        stderr = self.run(archive, tmp_path / "in.csv", tmp_path, *flags, status=status)
        message = "input line 3 has 3 fields, and not 2 (id, text): correct it, or quote what has"
        found = self.outputs(tmp_path)
        if on_error == "raise":
            assert found == [{"text": "one"}] and "Traceback" not in stderr
            assert stderr.splitlines()[-1].startswith(
                f"allennlp parallel-predict: error: {message}"
            )
            return
        (error,) = map(json.loads, (tmp_path / "errors").read_text().splitlines())
        assert (error["line"], error["input"], error["type"]) == (3, "2,two,2", "ValueError")
        assert error["message"].startswith(message)
        assert [found[0], found[-1]] == [{"text": "one"}, {"text": "three"}]
        assert [output["error"]["line"] for output in found[1:-1]] == [3] * (on_error != "skip")

    def test_a_damaged_file(self, archive, tmp_path):
        (tmp_path / "in.xz").write_bytes(b"\xfd7zXZ\0" + b"no block" * 9)
        stderr = self.run(archive, tmp_path / "in.xz", tmp_path, status=1)
        last = "allennlp parallel-predict: error: cannot read the input file: "
        assert stderr.splitlines()[-1].startswith(last) and "Traceback" not in stderr

    def test_flags_that_do_not_go_together(self, archive, tmp_path):
        (tmp_path / "in").write_text("1\n")
        assert "--fields needs" in self.run(
            archive, tmp_path / "in", tmp_path, "--fields", "a", status=1
        )
        both = ["--input-format", "text", "--use-dataset-reader"]
        assert "not both" in self.run(archive, tmp_path / "in", tmp_path, *both, status=1)

    def test_resume_and_shards(self, archive, tmp_path):
        rows = [["id", "text"], *([str(n), f"line {n}\nof two" * (n % 2)] for n in range(40))]
        rows[20].append(str(tmp_path / "once"))
        for row in rows:
            row += [""] * (3 - len(row))
        rows[0][2] = "stop_at"
        write(tmp_path / "in.tsv", rows, dialect="excel-tab")
        flags = settings(batching_batch_size=2, executor_num_workers=1, checkpoint_interval=0)
        arguments = ["--predictor", "texts", "--output-file", tmp_path / "out", "--silent", *flags]
        with command(archive, tmp_path / "in.tsv", *arguments, folder=tmp_path) as ran:
            wait_until(lambda: (tmp_path / "once").exists())
            ran.signal(signal.SIGINT)
            assert ran.wait() == 130
        assert 0 < (tmp_path / "out").stat().st_size
        named = ["--resume", "--input-format", "tsv", *flags]
        assert "another --input-format" in self.run(
            archive, tmp_path / "in.tsv", tmp_path, *named, status=1
        )
        self.run(archive, tmp_path / "in.tsv", tmp_path, "--resume", *flags)
        texts = [{"text": row[1]} for row in rows[1:]]
        assert self.outputs(tmp_path) == texts
        sharded = []
        for k in (1, 2, 3):
            self.run(archive, tmp_path / "in.tsv", tmp_path, "--shard", f"{k}/3", *flags)
            sharded += self.outputs(tmp_path)
        assert sharded == texts
