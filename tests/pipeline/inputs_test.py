"""Several inputs: patterns, an output for each or one for all, and what is refused."""

import gzip
import json
import os
import re
import signal
from pathlib import Path

import pytest

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.pipeline.config import RunConfig
from allennlp_parallel_predict.pipeline.inputs import expand_patterns, outputs_of
from tests.support.faults import (
    as_line,
    command,
    expected,
    faulty_archive,
    numbered,
    settings,
    wait_until,
)

pytestmark = pytest.mark.timeout(150)
ROOT = Path(__file__).parent.parent.parent
MODEL = str(ROOT / "examples/g2p/model.tar.gz")
WORDS = (ROOT / "examples/g2p/words.jsonl").read_text().splitlines(keepends=True)[:17]
COUNTS = {"part-1.jsonl": 30, "part-2.jsonl": 40, "part-3.jsonl": 20}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return faulty_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The current folder, with three inputs whose numbers are consecutive."""
    monkeypatch.chdir(tmp_path)
    at = 0
    for name, count in COUNTS.items():
        lines = [as_line({"n": n}) for n in range(at, at + count)]
        (tmp_path / name).write_text("".join(lines))
        at += count
    return tmp_path


def numbers(name):
    names = list(COUNTS)
    start = sum(COUNTS[other] for other in names[: names.index(name)])
    return range(start, start + COUNTS[name])


def run(archive, place, *flags, source="part-*.jsonl", status=0, stop=None, output=None, **changes):
    """When there is the file `stop`, and something in `output`, the run is interrupted."""
    flags = [
        "--silent",
        *flags,
        *settings(executor_num_workers=2, batching_batch_size=4, **changes),
    ]
    with command(archive, source, *flags, folder=place) as ran:
        if stop is not None:
            wait_until(stop.exists)
            wait_until(lambda: output is None or os.path.exists(output) and os.stat(output).st_size)
            ran.signal(signal.SIGINT)
        assert ran.wait() == status, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran


def make_slow(place, name, index):
    """An input that stops the run, the first time."""
    lines = (place / name).read_text().splitlines(keepends=True)
    sleep = {"do": "sleep", "seconds": 100, "once": str(place / "stop")}
    lines[index] = as_line({**json.loads(lines[index]), **sleep})
    (place / name).write_text("".join(lines))
    return place / "stop"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def assert_outputs(folder):
    assert names(folder) == list(COUNTS)
    for name in COUNTS:
        assert (folder / name).read_text() == expected(numbers(name)), name


class TestPatterns:
    def test_files_in_the_order_of_their_names(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for name in ("b-2", "b-10", "a-1", "c", "b-[1]"):
            (tmp_path / name).touch()
        assert expand_patterns(["c", "b-[0-9]*", "b-[1]"]) == ["c", "b-10", "b-2", "b-[1]"]
        assert expand_patterns(["none", "http://host/a?b=*"]) == ["none", "http://host/a?b=*"]
        with pytest.raises(SettingsError, match=r"no file matches the input d-\*"):
            expand_patterns(["c", "d-*"])

    @pytest.mark.parametrize(
        "name, format, output",
        [
            ("in/a.jsonl", None, "out/a.jsonl"),
            ("in/a.csv.gz", "lines", "out/a.jsonl"),
            ("in/a.conll", "auto", "out/a.conll.jsonl"),
            ("a.2.txt", "gz", "out/a.2.jsonl.gz"),
            ("https://host/in/a.json.zst?version=2", "zst", "out/a.jsonl.zst"),
            ("a#1.tsv", None, "out/a#1.jsonl"),
            ("a.parquet", "parquet", "out/a.parquet"),
        ],
    )
    def test_the_name_of_an_output(self, name, format, output):
        config = RunConfig("m", name, errors_file="e/bad", output_dir="out", output_format=format)
        (run,) = outputs_of(config)
        assert (run.input_file, run.output_file, run.output_dir) == (name, output, None)
        stem = output[len("out/") :].split(".jsonl")[0].split(".parquet")[0]
        assert run.errors_file == f"e/{stem}.bad"


class TestAnOutputForEach:
    def test_the_bytes_of_predict(self, predict, parallel_predict, tmp_path):
        (tmp_path / "part-1.jsonl").write_text("".join(WORDS[:10]))
        (tmp_path / "part-2.jsonl.gz").write_bytes(gzip.compress("".join(WORDS[10:]).encode()))
        words = [json.loads(line)["source"] for line in WORDS[:10]]
        (tmp_path / "part-3.csv").write_text("\n".join(["source", *words]) + "\n")
        flags = ["--silent", "--batch-size", "4"]
        inputs = [str(tmp_path / "part-*"), "--output-dir", str(tmp_path / "out")]
        ran = parallel_predict.run(
            ["parallel-predict", MODEL, *inputs, *flags, "--num-workers", "2"]
        )
        assert (ran.status, ran.leftover) == (0, []), ran.stderr
        assert names(tmp_path / "out") == ["part-1.jsonl", "part-2.jsonl", "part-3.jsonl"]
        for name in ("part-1.jsonl", "part-2.jsonl.gz"):
            output = tmp_path / "theirs"
            theirs = [str(tmp_path / name), "--output-file", str(output), *flags]
            assert predict.run(["predict", MODEL, *theirs], output=output).status == 0
            assert (tmp_path / "out" / name.replace(".gz", "")).read_bytes() == output.read_bytes()
        outputs = [(tmp_path / f"out/part-{n}.jsonl").read_bytes() for n in (1, 3)]
        assert outputs[0] == outputs[1]

    def test_it_goes_on_in_the_second(self, archive, place):
        stop = make_slow(place, "part-2.jsonl", 20)
        flags = ["--output-dir", "out", "--summary", "summary.json"]
        more = {"stop": stop, "output": "out/part-2.jsonl", "checkpoint_interval": 0}
        ran = run(archive, place, *flags, status=130, **more)
        assert re.search(r"interrupted after input line \d+ of part-2.jsonl; run", ran.stderr)
        assert names(place / "out") == ["part-1.jsonl", "part-2.jsonl", "part-2.jsonl.checkpoint"]
        first = os.stat(place / "out/part-1.jsonl").st_mtime_ns
        refused = run(archive, place, *flags, status=1)
        assert "part-2.jsonl is the output of a run that was interrupted" in refused.stderr
        ran = run(archive, place, *flags, "--resume")
        assert_outputs(place / "out")
        assert os.stat(place / "out/part-1.jsonl").st_mtime_ns == first
        assert "nothing to do: out/part-1.jsonl is already complete" in ran.stderr
        figures = json.loads((place / "summary.json").read_text())
        assert figures["failures"] == 0 and 40 <= figures["lines"] <= 60

    def test_an_older_output_is_not_taken_for_one_of_this_run(self, archive, place):
        run(archive, place, "--output-dir", "out")
        for name in COUNTS:
            (place / "out" / name).write_text("of another model\n")
        stop = make_slow(place, "part-1.jsonl", 5)
        run(archive, place, "--output-dir", "out", status=130, stop=stop)
        run(archive, place, "--output-dir", "out", "--resume")
        assert_outputs(place / "out")

    def test_a_changed_input_is_refused(self, archive, place):
        stop = make_slow(place, "part-2.jsonl", 20)
        more = {"stop": stop, "output": "out/part-2.jsonl", "checkpoint_interval": 0}
        run(archive, place, "--output-dir", "out", status=130, **more)
        with open(place / "part-2.jsonl", "a") as file:
            file.write(as_line({"n": 1000}))
        ran = run(archive, place, "--output-dir", "out", "--resume", status=1)
        assert "belongs to a run with another input file" in ran.stderr

    def test_a_model_that_keeps_state_begins_each_input_afresh(self, tmp_path, place):
        stateful = faulty_archive(tmp_path / "stateful", keeps_state=True)
        run(stateful, place, "--output-dir", "out")
        for name in COUNTS:
            run(stateful, place, "--output-file", "alone", source=name)
            assert (place / "alone").read_text() == (place / "out" / name).read_text(), name
        flags = ["--parallel-overrides", '{"executor": {"type": "in_process"}}', "--overwrite"]
        with command(stateful, "part-*.jsonl", "--output-dir", "out", *flags, folder=place) as ran:
            assert ran.wait() == 1
        assert "give the inputs one by one" in ran.stderr.splitlines()[-1]

    def test_failures_are_listed_for_each(self, archive, place):
        faults = {3: "raise", 5: "raise"}
        (place / "part-2.jsonl").write_text("".join(map(as_line, numbered(9, faults))))
        flags = ["--output-dir", "out", "--errors-file", "bad.jsonl", "--on-error", "skip"]
        ran = run(archive, place, *flags, status=3)
        assert [path.name for path in sorted(place.glob("*.bad.jsonl"))] == [
            f"part-{n}.bad.jsonl" for n in (1, 2, 3)
        ]
        errors = [json.loads(line) for line in (place / "part-2.bad.jsonl").open()]
        assert [(e["file"], e["line"]) for e in errors] == [
            ("part-2.jsonl", 4),
            ("part-2.jsonl", 6),
        ]
        assert "59 lines in" in ran.stderr and "2 failed" in ran.stderr


class TestOneForAll:
    def test_the_outputs_one_after_the_other(self, archive, place):
        run(archive, place, "--output-dir", "out")
        run(archive, place, "--output-file", "all")
        outputs = [(place / "out" / name).read_text() for name in COUNTS]
        assert (place / "all").read_text() == "".join(outputs) == expected(range(90))

    @pytest.mark.parametrize("format", ["lines", "gz"])
    def test_it_goes_on_in_the_second(self, archive, place, format):
        stop = make_slow(place, "part-2.jsonl", 20)
        flags = ["--output-file", "all", "--output-format", format]
        ran = run(archive, place, *flags, status=130, stop=stop, checkpoint_interval=0)
        assert re.search(r"interrupted after input line \d+ of part-2.jsonl; run", ran.stderr)
        run(archive, place, *flags, "--resume")
        opened = gzip.open if format == "gz" else open
        with opened(place / "all", "rt") as file:
            assert file.read() == expected(range(90))
        assert not (place / "all.checkpoint").exists()

    def test_an_error_names_the_file_and_the_line(self, archive, place):
        with open(place / "part-2.jsonl", "a") as file:
            file.write("no JSON\n")
        ran = run(archive, place, "--output-file", "all", status=1)
        assert "input line 41 of part-2.jsonl is not JSON" in ran.stderr.splitlines()[-1]
        flags = ["--on-error", "skip", "--overwrite", "--errors-file", "bad"]
        run(archive, place, "--output-file", "all", *flags, status=3)
        error = json.loads((place / "bad").read_text())
        assert (error["file"], error["line"]) == ("part-2.jsonl", 41)
        assert (place / "all").read_text() == expected(range(90))

    def test_a_dry_run_counts_all(self, archive, place):
        ran = run(archive, place, "--output-file", "all", "--dry-run")
        assert "estimate: about 90 lines" in ran.stdout and not (place / "all").exists()


class TestRefused:
    """Before the model is loaded, which would take a minute here."""

    @pytest.fixture(scope="class")
    def archive(self, tmp_path_factory):
        return faulty_archive(tmp_path_factory.mktemp("slow"), loading_fault="sleep")

    @pytest.mark.parametrize(
        "source, flags, message",
        [
            ("none-*.jsonl", ["--output-dir", "out"], "no file matches the input none-*.jsonl"),
            ("part-*.jsonl", [], "there are 3 inputs, such as part-2.jsonl: give --output-dir"),
            ("part-*.jsonl", ["--output-dir", "."], "is the same file as the input part-"),
            (
                "*/x.jsonl",
                ["--output-dir", "out"],
                "is the same file as --output-file of a/x.jsonl",
            ),
            ("part-*.jsonl", ["--output-dir", "part-1.jsonl"], "cannot write part-1.jsonl"),
            ("part-*.jsonl", ["--output-dir", "o", "--output-file", "f"], "not both"),
            ("part-*.jsonl", ["--output-file", "f", "--shard", "1/2"], "needs an --output-dir"),
            ("-", ["--output-dir", "out"], "must be files: -"),
            ("part-1.jsonl", ["--output-dir", "out", "--input-format", "x"], "invalid choice"),
        ],
    )
    def test_with_a_sentence(self, archive, place, source, flags, message):
        for folder in ("a", "b"):
            (place / folder).mkdir()
            (place / folder / "x.jsonl").write_text(as_line({"n": 1}))
        before = {name: (place / name).read_bytes() for name in COUNTS}
        status = 2 if "invalid" in message else 1
        ran = run(archive, place, *flags, source=source, status=status)
        assert message in ran.stderr.splitlines()[-1]
        assert {name: (place / name).read_bytes() for name in COUNTS} == before
        assert not (place / "out").exists() or names(place / "out") == []

    def test_a_folder_that_cannot_be_written(self, archive, place):
        (place / "out").mkdir(mode=0o555)
        flags = ["--output-dir", "out", "--silent"]
        with command(archive, "part-*.jsonl", *flags, folder=place, user=65534) as ran:
            assert ran.wait() == 1
        assert "you have no permission to write" in ran.stderr.splitlines()[-1]
