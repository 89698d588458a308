"""Outputs are written as `json.dumps` writes them, to the byte."""

import enum
import json
import math
import random
import struct
from collections import namedtuple
from types import SimpleNamespace
from typing import Any, List

import numpy
import pytest
from allennlp.predictors import Predictor

from allennlp_parallel_predict.accelerate import fast_json
from allennlp_parallel_predict.accelerate.fast_json import dump_faster, to_json
from allennlp_parallel_predict.accelerate.predictor import tune_predictor
from tests.support.pools import ARCHIVE, in_fork


def floats_of_all_sizes(seed: int) -> List[float]:
    """Of all bit patterns, as models give them, and rounded ones."""
    chance = random.Random(seed)
    doubles = struct.unpack("5000d", chance.getrandbits(64 * 5000).to_bytes(40000, "little"))
    singles = struct.unpack("5000f", chance.getrandbits(32 * 5000).to_bytes(20000, "little"))
    others = [chance.gauss(0, 1) * 10.0 ** chance.randint(-20, 20) for _ in range(5000)]
    rounded = [round(chance.gauss(0, 1) * 10.0 ** chance.randint(-6, 20), 3) for _ in range(5000)]
    return [x for x in [*doubles, *singles, *others, *rounded] if math.isfinite(x)]


@pytest.fixture
def used(monkeypatch):
    """How often lists were written by orjson."""
    texts = []
    numbers = fast_json._numbers

    def count(value):
        texts.append(numbers(value))
        return texts[-1]

    monkeypatch.setattr(fast_json, "_numbers", count)
    return texts


@pytest.mark.parametrize("seed", range(10))
def test_floats(used, seed):
    outputs = {"logits": floats_of_all_sizes(seed)}
    assert to_json(outputs) == json.dumps(outputs)
    assert used[0] is not None


def test_powers(used):
    powers = [sign * 2.0**exponent for exponent in range(-1074, 1024) for sign in (1, -1)]
    powers += [
        float(f"{digits}e{exponent}") for exponent in range(-330, 308) for digits in (1, 9.99)
    ]
    outputs = {"powers": powers}
    assert to_json(outputs) == json.dumps(outputs)
    assert used[0] is not None


@pytest.mark.parametrize(
    "value",
    [
        [[0.5, 1e-05], [], [[1e22, -0.0]]],
        [0.5, 3, -(2**63), 2**64 - 1, True, False],
        (0.5, 1.5),
        [(0.5, 1e-05), (2, 3.5)],
    ],
)
def test_numbers_of_all_kinds(value):
    outputs = {"words": ["née", 'a "quoted" one', "\ud800"], "numbers": value, "loss": 0.00001}
    assert to_json(outputs) == json.dumps(outputs)


class Level(enum.IntEnum):
    HIGH = 3


class Percent(float):
    pass


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        None,
        "text, with a comma",
        {"key": 1},
        {},
        2**64,
        Level.HIGH,
        Percent(0.25),
        numpy.float64(0.1),
        Point(1.0, 2.0),
    ],
)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: [[0.5], [x, 1e-05]]])
def test_what_is_no_list_of_numbers(value, wrap):
    outputs = {"first": [0.5, wrap(value)], "second": wrap(value)}
    assert to_json(outputs) == json.dumps(outputs)


@pytest.mark.parametrize(
    "outputs",
    [
        {1: [0.5], None: [1e-05], 2.5: 3},
        [[0.5, 1e-05]],
        [{"logits": [0.5]}],
        "text",
        0.00001,
        {},
        {"logits": []},
        {"logits": [[]]},
        {"nested": {"logits": [0.5, 1e-05]}},
    ],
)
def test_other_outputs(outputs):
    assert to_json(outputs) == json.dumps(outputs)


def deep(depth: int) -> Any:
    value: Any = [0.5]
    for _ in range(depth):
        value = [value]
    return value


def test_lists_that_are_nested_deep():
    for depth in (200, 300, 900):
        assert to_json({"deep": deep(depth)}) == json.dumps({"deep": deep(depth)})


def circle() -> List[Any]:
    value: List[Any] = [0.5]
    value.append(value)
    return value


@pytest.mark.parametrize(
    "value", [[0.5, {1, 2}], [0.5, numpy.float32(1)], [0.5, b"x"], circle(), [0.5, {(1, 2): 3}]]
)
def test_what_json_cannot_express_fails_as_before(value):
    outputs = {"first": [0.5], "second": value}
    with pytest.raises((TypeError, ValueError)) as expected:
        json.dumps(outputs)
    with pytest.raises(type(expected.value)) as error:
        to_json(outputs)
    assert str(error.value) == str(expected.value)


class TestPredictors:
    @pytest.fixture
    def predictor(self):
        return Predictor.from_path(str(ARCHIVE))

    def test_as_allennlp_writes_it(self, predictor, used):
        dump_faster(predictor)
        used.clear()
        outputs = {"logits": [0.5, 1e-05], "label": "yes"}
        assert predictor.dump_line(outputs) == Predictor.dump_line(predictor, outputs)
        assert len(used) == 1

    def test_of_workers(self, predictor):
        def tune():
            tune_predictor(predictor, exact=True)
            assert predictor.dump_line is fast_json._dump_line

        in_fork(tune)  # as what it does to beam search holds for the whole process

    def test_that_write_their_own_way(self, predictor, monkeypatch):
        monkeypatch.setattr(type(predictor), "dump_line", lambda self, outputs: "mine\n", False)
        dump_faster(predictor)
        assert predictor.dump_line({"logits": [0.5]}) == "mine\n"

    def test_with_a_way_of_writing_for_each(self, predictor):
        predictor.dump_line = lambda outputs: "this one's\n"
        dump_faster(predictor)
        assert predictor.dump_line({"logits": [0.5]}) == "this one's\n"

    def test_where_a_plugin_has_changed_them_all(self, predictor, monkeypatch):
        monkeypatch.setattr(Predictor, "dump_line", lambda self, outputs: "ours\n")
        dump_faster(predictor)
        assert predictor.dump_line({"logits": [0.5]}) == "ours\n"

    def test_with_an_orjson_that_writes_otherwise(self, predictor, monkeypatch):
        other = SimpleNamespace(dumps=lambda value: b"[0.30000000000000001]")
        monkeypatch.setattr(fast_json, "orjson", other)
        dump_faster(predictor)
        assert "dump_line" not in vars(predictor)

    def test_where_there_is_no_orjson(self, predictor, monkeypatch):
        monkeypatch.setattr(fast_json, "orjson", None)
        dump_faster(predictor)
        assert "dump_line" not in vars(predictor)
