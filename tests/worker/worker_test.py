"""The worker against `allennlp predict`'s own loop over the same predictor."""

import json
import pickle
import sys
from typing import Any, Dict, List

import pytest
import torch
from allennlp.data import Instance
from allennlp.data.fields import MetadataField
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.messages import Batch, BatchKind, OnError, WorkerOptions
from allennlp_parallel_predict.data.lazy_instances import DeferredCall
from allennlp_parallel_predict.worker.worker import Worker


class Uncompared:
    """In place of a list of calls, which would be state."""

    __slots__ = ()

    def append(self, call: str) -> None:
        pass


class RecordingPredictor(Predictor):
    """Keeps what was called, fails where its input says so, and needs no model."""

    def __init__(self) -> None:
        self._model: Any = torch.nn.Linear(1, 1)
        self._dataset_reader: Any = None
        self.calls: List[str] = []

    def load_line(self, line: str) -> Dict[str, Any]:
        self.calls.append(f"load {line}")
        return json.loads(line)

    def predict_json(self, inputs: Dict[str, Any]) -> Dict[str, Any]:
        return self._predict([inputs])[0]

    def predict_batch_json(self, inputs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        return self._predict(inputs)

    def predict_instance(self, instance: Instance) -> Dict[str, Any]:
        return self.predict_json(instance["it"].metadata)

    def _predict(self, inputs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        self.calls.append("predict " + ",".join(str(i["n"]) for i in inputs))
        for i in inputs:
            if i.get("fails") == "predict" or i.pop("once", None) and len(inputs) > 1:
                raise ValueError(f"cannot take {i['n']}")
            if len(inputs) > i.get("fits", 100):
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            if "prints" in i:
                print(i["prints"])
        return [{**i, "done": True} for i in inputs]

    def dump_line(self, outputs: Dict[str, Any]) -> str:
        self.calls.append(f"dump {outputs['n']}")
        if outputs.get("fails") == "dump":
            raise KeyError("dump")
        return f"{outputs['n']}\n"


def run(lines, **options):
    predictor = RecordingPredictor()
    lines = [json.dumps(x) if isinstance(x, dict) else x for x in lines]
    batch = Batch(7, BatchKind.LINES, lines, range(len(lines)), range(1, len(lines) + 1))
    return Worker(predictor, WorkerOptions(**options)).predict(batch), predictor.calls


def test_calls_come_in_the_order_of_predict():
    result, calls = run([{"n": 1}, {"n": 2}], echo_inputs=True)
    assert calls == ['load {"n": 1}', 'load {"n": 2}', "predict 1,2", "dump 1", "dump 2"]
    assert result.outputs == ["1\n", "2\n"]
    assert result.descriptions == ['{"n": 1}', '{"n": 2}']
    assert (result.number, result.fatal, result.failures) == (7, None, [])


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


def test_raw_outputs_are_the_dictionaries_of_the_predictor():
    predictor = RecordingPredictor()
    inputs = [pickle.dumps({"n": n, "once": True}) for n in (1, 2)]
    options = WorkerOptions(on_error=OnError.SKIP)
    result = Worker(predictor, options).predict(Batch(7, BatchKind.JSON, inputs, (0, 1), (1, 2)))
    # The predictor changes its inputs; when they are tried again they are as they were.
    assert [pickle.loads(o) for o in result.outputs] == [{"n": n, "done": True} for n in (1, 2)]
    assert predictor.calls == ["predict 1,2", "predict 1", "predict 2"]


@pytest.mark.parametrize(
    "kind, method", [(BatchKind.JSON, "json"), (BatchKind.JSON_BATCH, "batch_json")]
)
def test_a_list_of_one_is_a_batch_if_the_caller_says_so(kind, method, monkeypatch):
    predictor = RecordingPredictor()
    monkeypatch.setattr(predictor, "predict_json", lambda i: "json")
    monkeypatch.setattr(predictor, "predict_batch_json", lambda i: ["batch_json"])
    batch = Batch(7, kind, [pickle.dumps({"n": 1})], (0,), (1,))
    result = Worker(predictor, WorkerOptions()).predict(batch)
    assert [pickle.loads(output) for output in result.outputs] == [method]


def test_instances_go_through_predict_instance():
    predictor = RecordingPredictor()
    instance = Instance({"it": MetadataField({"n": 4})})
    batch = Batch(0, BatchKind.READER_INSTANCES, [instance], [0], [1])
    result = Worker(predictor, WorkerOptions(echo_inputs=True)).predict(batch)
    assert result.outputs == ["4\n"]
    assert result.descriptions == [str(instance)]


def test_a_recorded_call_that_fails_costs_one_input():
    predictor = RecordingPredictor()
    instance = Instance({"it": MetadataField({"n": 4})})
    batch = Batch(
        0, BatchKind.READER_INSTANCES, [DeferredCall(b"not a pickle"), instance], [0, 1], [1, 2]
    )
    result = Worker(predictor, WorkerOptions(on_error=OnError.SKIP)).predict(batch)
    assert result.outputs == [None, "4\n"]


def test_a_model_that_changes_itself_is_found_out():
    predictor = RecordingPredictor()
    predictor.calls = Uncompared()
    worker = Worker(predictor, WorkerOptions())
    batch = Batch(0, BatchKind.LINES, ['{"n": 1}'], [0], [1])
    assert worker.predict(batch).state_change is None
    with torch.no_grad():
        predictor._model.bias.add_(1)
    assert "bias" in worker.predict(batch).state_change
    assert worker.predict(batch).state_change is None
    torch.rand(1)
    assert "random" in worker.predict(batch).state_change


def test_bytes_that_are_printed_are_caught_with_the_text():
    class Printing(RecordingPredictor):
        def predict_json(self, inputs):
            print("text, ", end="")
            sys.stdout.buffer.write("b\u00fcffer, ".encode() + b"\xff")
            return super().predict_json(inputs)

    worker = Worker(Printing(), WorkerOptions())
    result = worker.predict(Batch(0, BatchKind.LINES, ['{"n": 1}'], [0], [1]))
    assert result.printed == {0: "text, b\u00fcffer, \\xff"}
