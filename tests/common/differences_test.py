import math

import pytest

from allennlp_parallel_predict.common.differences import Differences

NAN, INFINITE = math.nan, math.inf


def compared(*pairs):
    differences = Differences()
    for expected, found in pairs:
        differences.add(expected, found)
    return differences


@pytest.mark.parametrize(
    "expected, found, labels, largest",
    [
        ({"label": "a", "p": 0.5}, {"label": "a", "p": 0.25}, {"label": [True]}, 0.25),
        ({"label": "a"}, {"label": "b"}, {"label": [False]}, 0),
        ({"tags": ["A", "B", "C"]}, {"tags": ["A", "B"]}, {"tags": [True, True, False]}, 0),
        ({"spans": [[0, 1]]}, {"spans": [[0, 2]]}, {"spans": [True, False]}, 0),
        ({"a": {"b": [1], "c": True}}, {"a": {"b": [1], "c": False}}, {"a": [True, False]}, 0),
        ({"label": "a", "n": 1}, None, {"label": [False], "n": [False]}, 0),
        ({"label": "a"}, {"label": "a", "more": None}, {"label": [True], "more": [False]}, 0),
        ({"p": [0.5, NAN]}, {"p": [0.5, NAN]}, {}, 0),
        ({"p": [0.5, 0.5]}, {"p": [NAN, INFINITE]}, {"p": [False, False]}, 0),
        ({"p": -3.4028e38}, {"p": -65504.0}, {}, 0),  # both are masks
        ({"p": 0.5}, {"p": "0.5"}, {"p": [False]}, 0),
        ("text", "text", {"": [True]}, 0),
    ],
)
def test_what_differs(expected, found, labels, largest):
    differences = compared((expected, found))
    assert (differences.labels, differences.largest) == (labels, largest)


def test_sequences_and_shares():
    one, other = {"tags": ["A", "B"], "ids": [[1, 2], [3]]}, {
        "tags": ["A", "C"],
        "ids": [[1, 2], [4]],
    }
    differences = compared((one, one), (one, other))
    assert differences.sequences == [True] * 3 + [False, True, False]
    assert differences.share("tags") == 0.75 and differences.share("ids") == pytest.approx(5 / 6)
