"""The command that compares two profiles; the table is tested with profiling/compare.py."""

import json

import pytest
from allennlp.commands import main

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.executors import InProcessExecutor
from tests.support.profiles import profiled


def run(monkeypatch, *paths):
    monkeypatch.setattr("sys.argv", ["allennlp", "parallel-compare", *map(str, paths)])
    main(prog="allennlp")


def test_two_files(tmp_path, monkeypatch, capsys):
    ran = profiled([{"forward": 0.001}] * 8, tmp_path, executor=InProcessExecutor())
    more = {**ran.report, "lines": 9}
    for name, report in (("a", ran.report), ("b", more)):
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    run(monkeypatch, tmp_path / "a.json", tmp_path / "a.json")
    shown = capsys.readouterr()
    assert "A: " in shown.out and "forward" in shown.out and "different input" not in shown.err
    run(monkeypatch, tmp_path / "a.json", tmp_path / "b.json")
    assert "The runs had different input" in capsys.readouterr().err


def test_a_file_that_is_none(tmp_path, monkeypatch):
    (tmp_path / "a.json").write_text("no JSON")
    monkeypatch.setattr("sys.excepthook", lambda *error: None)
    with pytest.raises(SettingsError, match="cannot read the profile"):
        run(monkeypatch, tmp_path / "a.json", tmp_path / "a.json")
