"""Inputs that fail, what is printed, and batches that do not fit into memory."""

import sys

import pytest

from allennlp_parallel_predict.common.messages import Batch, BatchKind, WorkerOptions
from allennlp_parallel_predict.worker.worker import Worker
from tests.support.recording import RecordingPredictor, run


def test_printing_is_kept_with_the_output_that_it_came_before():
    result, _ = run([{"n": 1, "prints": "x"}, {"n": 2, "prints": "y"}])
    assert result.printed == {0: "x\ny\n"}


@pytest.mark.parametrize(
    "bad, error_type, outputs",
    [
        ("{", "json.decoder.JSONDecodeError", []),
        ({"n": 2, "fails": "predict"}, "ValueError", []),
        ({"n": 2, "fails": "dump"}, "KeyError", ["1\n"]),
    ],
)
def test_raise_stops_where_predict_stops_and_names_the_culprit(bad, error_type, outputs):
    result, _ = run([{"n": 1}, bad, {"n": 3}])
    assert result.outputs == outputs
    assert result.fatal.offset == 1
    assert result.fatal.error.type_name == error_type
    assert "Traceback" in result.fatal.error.traceback


@pytest.mark.parametrize("bad", ["{", {"n": 2, "fails": "predict"}, {"n": 2, "fails": "dump"}])
def test_skip_loses_only_the_bad_input(bad):
    result, _ = run([{"n": 1}, bad, {"n": 3}], on_error="skip")
    assert result.outputs == ["1\n", None, "3\n"]
    assert [failure.offset for failure in result.failures] == [1]
    assert result.fatal is None


def test_an_input_that_a_predictor_has_changed_is_loaded_again_for_the_second_try():
    result, _ = run([{"n": 1, "once": True}, {"n": 2, "fails": "predict"}], on_error="skip")
    assert result.outputs == ["1\n"]
    assert [failure.offset for failure in result.failures] == [1]


def test_a_batch_that_does_not_fit_into_memory_is_halved_even_if_errors_raise():
    result, calls = run([{"n": n, "fits": 2} for n in range(5)])
    assert result.outputs == [f"{n}\n" for n in range(5)]
    assert result.fatal is None
    assert [c for c in calls if c.startswith("predict")] == [
        "predict 0,1,2,3,4",
        "predict 0,1",
        "predict 2,3,4",
        "predict 2",
        "predict 3,4",
    ]


def test_one_input_that_does_not_fit_is_an_error():
    result, _ = run([{"n": 1, "fits": 0}, {"n": 2}], on_error="skip")
    assert result.outputs == [None, "2\n"]
    assert result.failures[0].error.type_name == "RuntimeError"


def test_undecodable_lines_raise_what_decoding_them_would():
    result, _ = run(['{"n": 1}', '{"n": "\udcff"}'], encoding="UTF-8", on_error="skip")
    assert result.failures[0].error.type_name == "UnicodeDecodeError"
    assert result.outputs == ["1\n"]


def test_bytes_that_are_printed_are_caught_with_the_text():
    class Printing(RecordingPredictor):
        def predict_json(self, inputs):
            print("text, ", end="")
            sys.stdout.buffer.write("b\u00fcffer, ".encode() + b"\xff")
            return super().predict_json(inputs)

    worker = Worker(Printing(), WorkerOptions())
    result = worker.predict(Batch(0, BatchKind.LINES, ['{"n": 1}'], [0], [1]))
    assert result.printed == {0: "text, b\u00fcffer, \\xff"}
