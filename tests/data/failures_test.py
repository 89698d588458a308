"""Inputs that failed, and where their results belong; the command is tested with --retry."""

import io
import json

import pytest

from allennlp_parallel_predict.common.errors import ResumeError
from allennlp_parallel_predict.data.failures import (
    FailedSource,
    has_placeholders,
    merge,
    read_failures,
)
from allennlp_parallel_predict.data.sinks import placeholder
from allennlp_parallel_predict.data.sources import LineSource

FAILED = (2, 3, 6)
"""Of the inputs on lines 1 to 6."""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "in").write_text("".join(f"input {n}\n" for n in range(1, 7)))
    records = [{"line": n, "input": f"input {n}", "type": "T", "message": "m"} for n in FAILED]
    (tmp_path / "errors").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


def merged(place, lines, replaces):
    failures = read_failures(str(place / "errors"))
    source = FailedSource(LineSource(str(place / "in")), failures)
    results = [item.value.upper() for item in source]
    text = merge(io.StringIO("".join(lines)), source, failures, iter(results), replaces)
    return list(text)


def outputs(instead):
    return [instead(n) if n in FAILED else f"output {n}\n" for n in range(1, 7)]


def test_only_what_failed_is_read(place):
    source = FailedSource(LineSource(str(place / "in")), read_failures(str(place / "errors")))
    items = [(item.position, item.line_number, item.value) for item in source]
    assert items == [(0, 2, "input 2\n"), (1, 3, "input 3\n"), (2, 6, "input 6\n")]
    assert (source.places, source.total(), source.inputs) == ([1, 2, 5], 3, 6)


def test_results_come_where_they_belong(place):
    expected = outputs(lambda n: f"INPUT {n}\n")
    places = outputs(lambda n: placeholder(n, "T", "m"))
    failures = read_failures(str(place / "errors"))
    assert has_placeholders(io.StringIO("".join(places)), failures)
    assert merged(place, places, replaces=True) == expected
    without = outputs(lambda n: "")
    assert not has_placeholders(io.StringIO("".join(without)), failures)
    assert merged(place, without, replaces=False) == expected


def test_files_of_different_runs(place):
    some = outputs(lambda n: placeholder(n, "T", "m") if n == 3 else "")
    with pytest.raises(ResumeError, match="placeholders for 1 of the 3"):
        has_placeholders(io.StringIO("".join(some)), read_failures(str(place / "errors")))
    with pytest.raises(ResumeError, match="has 4 lines for 3 inputs"):
        merged(place, [*outputs(lambda n: ""), "more\n"], replaces=False)
    (place / "in").write_text("other\n" * 6)
    with pytest.raises(ResumeError, match="input line 2 is not what failed"):
        merged(place, [], replaces=True)
    (place / "errors").write_text("{}\n")
    with pytest.raises(ResumeError, match="its line 1 is none that"):
        read_failures(str(place / "errors"))
