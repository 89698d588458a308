"""Parquet inputs, written by pyarrow and pandas."""

import datetime
import decimal
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pyarrow
import pytest
from allennlp.predictors import Predictor
from pyarrow import parquet

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data.formats import Format, format_by_name, open_source
from allennlp_parallel_predict.data.inputs import InvalidInput
from allennlp_parallel_predict.data.limits import LimitedSource
from allennlp_parallel_predict.data.parquet import ParquetSource
from allennlp_parallel_predict.data.sharding import Shard
from tests.fixtures import join_predictors  # noqa: F401  (registers them)
from tests.support.faults import command, faulty_archive, settings, wait_until

pytestmark = pytest.mark.timeout(90)

ROWS = [{"id": n, "text": f"line {n}\nof ü", "score": n / 7} for n in range(2500)]
JSON_PREDICTOR = SimpleNamespace(load_line=Predictor.load_line.__get__(object()))


def write(path, rows=ROWS, **options):
    parquet.write_table(pyarrow.Table.from_pylist(rows), str(path), **options)
    return path


def read(path, *arguments):
    items = list(ParquetSource(str(path), *arguments))
    assert [item.line_number for item in items] == [item.position + 1 for item in items]
    return [(item.position, json.loads(item.value)) for item in items]


class TestRows:
    @pytest.mark.parametrize("size", [1, 700, 2500])
    @pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
    def test_what_pyarrow_writes(self, tmp_path, size, compression):
        rows = ROWS[:50] if size == 1 else ROWS
        write(tmp_path / "in", rows, row_group_size=size, compression=compression)
        assert read(tmp_path / "in") == list(enumerate(rows))
        for first in (1, 49, 700, 1024, 1400, 2499, 2500):
            assert read(tmp_path / "in", None, first) == list(enumerate(rows))[first:]

    def test_what_pandas_writes(self, tmp_path):
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(
            {"text": ["a", None], "n": [1.5, None], "at": pandas.to_datetime(["2024-01-02", None])}
        )
        frame.to_parquet(tmp_path / "in", index=False)
        nothing = {"text": None, "n": None, "at": None}
        assert read(tmp_path / "in") == [
            (0, {"text": "a", "n": 1.5, "at": "2024-01-02T00:00:00"}),
            (1, nothing),
        ]

    def test_values_that_json_does_not_have(self, tmp_path):
        day = datetime.datetime(2024, 1, 2, 3, 4, 5)
        utc = day.replace(tzinfo=datetime.timezone.utc)
        row = {
            "nested": {"a": [{"b": None}, {"b": day.date()}]},
            "time": day,
            "zone": utc,
            "clock": day.time(),
            "span": datetime.timedelta(minutes=1.5),
            "exact": decimal.Decimal("1.50"),
            "bytes": "ü".encode(),
        }
        table = pyarrow.Table.from_pylist([row])
        map_type = pyarrow.map_(pyarrow.string(), pyarrow.int64())
        table = table.append_column("map", pyarrow.array([[("k", 1)]], map_type))
        table = table.append_column("none", pyarrow.nulls(1))
        parquet.write_table(table, str(tmp_path / "in"))
        assert read(tmp_path / "in") == [
            (
                0,
                {
                    "nested": {"a": [{"b": None}, {"b": "2024-01-02"}]},
                    "time": "2024-01-02T03:04:05",
                    "zone": "2024-01-02T03:04:05+00:00",
                    "clock": "03:04:05",
                    "span": 90.0,
                    "exact": "1.50",
                    "bytes": "ü",
                    "map": [["k", 1]],
                    "none": None,
                },
            )
        ]

    def test_a_value_that_json_cannot_express_is_one_invalid_input(self, tmp_path):
        rows = [{"id": 1, "b": b"x"}, {"id": 2, "b": b"\xff"}, {"id": 3, "b": None}]
        before, bad, after = ParquetSource(str(write(tmp_path / "in", rows)))
        assert [before.value, after.value] == ['{"id": 1, "b": "x"}\n', '{"id": 3, "b": null}\n']
        assert isinstance(bad.value, InvalidInput) and bad.value == '{"id": 2, "b": null}\n'
        assert bad.value.problem.startswith("input row 2, column b: JSON cannot express its value:")

    def test_only_the_mapped_columns(self, tmp_path):
        rows = [{"id": 1, "q.text": "x", "b": b"\xff"}]
        columns = {"question": "q.text", "n": "id", "m": "id"}
        found = read(write(tmp_path / "in", rows), columns)
        assert found == [(0, {"question": "x", "n": 1, "m": 1})]
        with pytest.raises(SettingsError, match="no column c; its columns are id, q.text, b"):
            read(tmp_path / "in", {"a": "c"})

    def test_a_table_without_rows(self, tmp_path):
        parquet.write_table(pyarrow.table({"a": pyarrow.array([], "int64")}), tmp_path / "in")
        assert read(tmp_path / "in") == [] and ParquetSource(str(tmp_path / "in")).total() == 0


class TestParts:
    def test_counts_come_from_the_metadata(self, tmp_path):
        path = write(tmp_path / "in", row_group_size=300)
        content = bytearray(path.read_bytes())
        content[4:40_000] = bytes(39_996)  # what would be read otherwise
        path.write_bytes(content)
        source = ParquetSource(str(path))
        assert source.total() == 2500
        assert Shard(2, 3).bounds(source, 32) == (832, 832, 1664)
        assert Shard(2, 3).bounds(LimitedSource(source, 320), 32) == (96, 96, 192)
        with pytest.raises(OSError):
            list(source)

    def test_memory_does_not_grow_with_a_row_group(self, tmp_path):
        """Four thousand rows of 32 KB in one row group: 128 MB, of which pyarrow keeps 30 to 60."""
        script = """if True:
            import json, sys
            from allennlp_parallel_predict.data.parquet import ParquetSource
            def peak():
                status = open("/proc/self/status").read()
                return int(status.split("VmHWM:")[1].split()[0]) >> 10
            source = iter(ParquetSource(sys.argv[1]))
            next(source)
            before, count = peak(), 1 + sum(1 for _ in source)
            print(json.dumps([count, peak() - before]))
        """
        rows = [{"text": os.urandom(16_000).hex()} for _ in range(4000)]
        write(tmp_path / "in", rows, compression="none")
        ran = subprocess.run([sys.executable, "-c", script, tmp_path / "in"], stdout=-1, check=True)
        count, megabytes = json.loads(ran.stdout)
        assert (count, megabytes < 80) == (4000, True)


class TestMistakes:
    @pytest.mark.parametrize("content", [b"", b"PAR1", b"no table", b"PAR1 and more PAR1" * 9])
    def test_no_parquet(self, tmp_path, content):
        (tmp_path / "in").write_bytes(content)
        with pytest.raises(Exception) as caught:
            read(tmp_path / "in")
        assert caught.value.explanation.startswith(f"cannot read {tmp_path}/in as Parquet: ")
        assert "\n" not in caught.value.explanation

    def test_cut_off(self, tmp_path):
        content = write(tmp_path / "in").read_bytes()
        (tmp_path / "in").write_bytes(content[:-20])
        with pytest.raises(Exception, match="(?i)parquet") as caught:
            read(tmp_path / "in")
        assert caught.value.explanation.startswith(f"cannot read {tmp_path}/in as Parquet: ")

    def test_without_the_library(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(SettingsError, match=r"'allennlp-parallel-predict\[parquet\]'"):
            ParquetSource("in.parquet")

    def test_a_pipe(self):
        with pytest.raises(SettingsError, match="cannot be read from standard input or a pipe"):
            ParquetSource("-")


class TestTheFormat:
    @pytest.mark.parametrize("name", ["a.parquet", "hash-of-a-url", "a.csv"])
    def test_by_the_content(self, tmp_path, name):
        path = str(write(tmp_path / name))
        assert format_by_name(path, JSON_PREDICTOR) == "parquet"
        own = SimpleNamespace(load_line=lambda line: {"sentence": line})
        assert format_by_name(path, own) == "lines"

    def test_by_the_name(self, tmp_path):
        (tmp_path / "a.parquet").write_bytes(b"\0\0")
        assert format_by_name(str(tmp_path / "a.parquet"), JSON_PREDICTOR) == "parquet"
        (tmp_path / "a.parquet").write_text('{"a": 1}\n')  # which `predict` can read
        assert format_by_name(str(tmp_path / "a.parquet"), JSON_PREDICTOR) == "lines"

    def test_columns_of_other_tables(self, tmp_path):
        (tmp_path / "in").write_text("a,b\n1,2\n")
        source = open_source(str(tmp_path / "in"), Format("csv", columns={"k": "b"}))
        assert [item.value for item in source] == ['{"k": "2"}\n']
        with pytest.raises(SettingsError, match="no column c; its columns are a, b"):
            list(open_source(str(tmp_path / "in"), Format("csv", columns={"k": "c"})))
        with pytest.raises(SettingsError, match="--map needs an input with columns"):
            open_source(str(tmp_path / "in"), Format(columns={"k": "c"}))


class TestTheCommand:
    def run(self, archive, source, folder, *flags, status=0):
        flags = ["--predictor", "texts", "--output-file", folder / "out", "--silent", *flags]
        with command(archive, source, *flags, folder=folder) as ran:
            assert ran.wait() == status, ran.stderr
        assert "Traceback" not in ran.stderr
        return ran.stderr

    def outputs(self, folder):
        return [json.loads(line) for line in (folder / "out").read_text().splitlines()]

    def test_joined_and_limited(self, archive, tmp_path):
        source = write(tmp_path / "in.parquet", row_group_size=3)
        flags = ["--id-field", "key", "--limit", 7, "--num-workers", 2, "--batch-size", 2]
        flags += ["--map", "text=text,key=id"]
        self.run(archive, source, tmp_path, *flags)
        assert self.outputs(tmp_path) == [
            {"key": row["id"], "text": row["text"]} for row in ROWS[:7]
        ]

    def test_dry_run(self, archive, tmp_path):
        source = write(tmp_path / "in.parquet")
        self.run(archive, source, tmp_path, "--dry-run")
        printed = (tmp_path / "stdout").read_text()
        assert f"of input line 1:\n{json.dumps({'text': ROWS[0]['text']})}" in printed
        assert "estimate: about 2,500 lines in" in printed and not (tmp_path / "out").exists()

    @pytest.mark.parametrize("on_error", ["raise", "placeholder"])
    def test_a_row_that_is_none(self, archive, tmp_path, on_error):
        rows = [{"text": "one".encode()}, {"text": b"\xff"}, {"text": "three".encode()}]
        source = write(tmp_path / "in.parquet", rows)
        status = 1 if on_error == "raise" else 3
        stderr = self.run(archive, source, tmp_path, "--on-error", on_error, status=status)
        message = "input row 2, column text: JSON cannot express its value: 'utf-8' codec can't"
        if on_error == "raise":
            assert f"allennlp parallel-predict: error: {message}" in stderr.splitlines()[-1]
            assert self.outputs(tmp_path) == [{"text": "one"}]
        else:
            first, error, last = self.outputs(tmp_path)
            assert error["error"]["line"] == 2 and error["error"]["message"].startswith(message)

    def test_a_pipe(self, archive, tmp_path):
        with write(tmp_path / "in").open("rb") as file:
            for flags, message in (
                (["--input-format", "parquet"], "Parquet cannot be read from standard input"),
                ([], "input line 1 begins a Parquet file, which cannot be read as lines or from a"),
            ):
                flags = ["--predictor", "texts", "--silent", "--output-file", "/dev/null", *flags]
                with command(archive, "-", *flags, folder=tmp_path, stdin=file.fileno()) as ran:
                    assert ran.wait() == 1
                assert f"error: {message}" in ran.stderr.splitlines()[-1]

    def test_mistakes_are_told_before_the_model_is_loaded(self, tmp_path):
        """With an archive that takes a minute to load."""
        archive = faulty_archive(tmp_path, loading_fault="sleep")
        source, other = write(tmp_path / "in.parquet"), tmp_path / "other"
        other.write_text("a,b\n1,2\n")
        for path, flags, message in (
            (source, ["--map", "a=b"], "no column b; its columns are id, text, score"),
            (source, ["--map", "a"], "--map must be KEY=COLUMN"),
            (source, ["--map", "a=id", "--use-dataset-reader"], "give --map or --use-dataset-r"),
            (source, ["--map", "a=id", "--input-format", "lines"], "--map needs an input with col"),
            (other, ["--map", "k=c", "--input-format", "csv"], "no column c; its columns are a, b"),
            (other, ["--input-format", "parquet"], f"cannot read {other} as Parquet: "),
        ):
            with command(archive, path, *flags, folder=tmp_path) as ran:
                assert ran.wait(25) == 1
            assert message in ran.stderr.splitlines()[-1]

    def test_resume_and_shards(self, archive, tmp_path):
        rows = [{"id": n, "text": f"line {n}", "stop_at": ""} for n in range(40)]
        rows[20]["stop_at"] = str(tmp_path / "once")
        source = write(tmp_path / "in.parquet", rows, row_group_size=7)
        flags = settings(batching_batch_size=2, executor_num_workers=1, checkpoint_interval=0)
        arguments = ["--predictor", "texts", "--output-file", tmp_path / "out", "--silent", *flags]
        with command(archive, source, *arguments, folder=tmp_path) as ran:
            wait_until(lambda: (tmp_path / "once").exists())
            ran.signal(signal.SIGKILL)
            assert ran.wait() == -signal.SIGKILL
        assert 0 < (tmp_path / "out").stat().st_size
        mapped = ["--map", "text=text", "--resume", *flags]
        assert "another --map" in self.run(archive, source, tmp_path, *mapped, status=1)
        self.run(archive, source, tmp_path, "--resume", *flags)
        texts = [{"text": row["text"]} for row in rows]
        assert self.outputs(tmp_path) == texts
        sharded = []
        for k in (1, 2, 3):
            self.run(archive, source, tmp_path, "--shard", f"{k}/3", *flags)
            sharded += self.outputs(tmp_path)
        assert sharded == texts
