"""What the doctor asks of a Python environment."""

import os

from allennlp_parallel_predict.doctor.environment import Environment, parse_version


def test_a_crash_of_an_import_is_reported(tmp_path, monkeypatch) -> None:
    (tmp_path / "torch.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    assert "died of signal 6" in Environment().probe("import torch")[1]


def test_versions_are_compared_by_their_numbers() -> None:
    assert parse_version("2.13.0+cpu") == (2, 13)
    assert parse_version("81") >= (81,)
    assert parse_version("2.10") > parse_version("2.9.1")
