"""The list of failures, and where their results belong. `pipeline/retry_test.py` runs all of it."""

import io

import pytest

from allennlp_parallel_predict.common.errors import ResumeError
from allennlp_parallel_predict.data.failures import (
    FailedSource,
    count_lines,
    merge,
    read_failures,
)
from allennlp_parallel_predict.data.sinks import placeholder
from tests.support.faults import ListSource, as_line


def failure(line, text):
    return {"line": line, "input": text, "type": "ValueError", "message": f"no {text}"}


@pytest.fixture
def failures(tmp_path):
    path = tmp_path / "errors"
    path.write_text("".join(map(as_line, [failure(2, "b"), failure(4, "\ud800")])))
    with open(path, "rb") as file:
        return read_failures(file)


def place(line, text):
    return placeholder(line, "ValueError", f"no {text}")


def test_only_what_failed_is_left_of_a_source(failures):
    source = FailedSource(ListSource(["a", "b", "c", "\ud800", "e"]), failures)
    assert [tuple(item) for item in source] == [(0, 2, "b\n"), (1, 4, "\ud800\n")]
    assert (source.places, source.inputs, source.total()) == ([1, 3], 5, 2)


@pytest.mark.parametrize("inputs", [["a", "b", "c", "d"], ["a", "b", "c"]])
def test_another_input_is_refused(failures, inputs):
    with pytest.raises(ResumeError):
        list(FailedSource(ListSource(inputs), failures))


@pytest.mark.parametrize(
    "lines, merged",
    [
        (["A\n", place(2, "b"), "C\n", place(4, "\ud800"), "E\n"], "ABCDE"),
        (["A\n", "C\n", "E\n"], "ABCDE"),
        # What has the form of another placeholder is an output.
        ([place(1, "a"), place(2, "b"), "C\n", place(4, "\ud800"), "E\n"], "*BCDE"),
    ],
)
def test_results_are_put_in_their_places(failures, lines, merged):
    count, found = count_lines(io.StringIO("".join(lines)), failures)
    assert (count, found) == (len(lines), 2 if len(lines) == 5 else 0)
    text = "".join(merge(iter(lines), [1, 3], failures, iter(["B\n", "D\n"]), found > 0))
    assert text.replace(place(1, "a"), "*\n") == "".join(f"{letter}\n" for letter in merged)


def test_a_part_of_the_placeholders_is_refused(failures):
    with pytest.raises(ResumeError, match="placeholders for 1 of the 2"):
        count_lines(io.StringIO(place(2, "b")), failures)
