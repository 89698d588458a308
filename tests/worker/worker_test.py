"""The worker against `allennlp predict`'s own loop over the same predictor."""

import pickle

import pytest
import torch
from allennlp.data import Instance
from allennlp.data.fields import MetadataField

from allennlp_parallel_predict.common.messages import Batch, BatchKind, OnError, WorkerOptions
from allennlp_parallel_predict.data.lazy_instances import DeferredCall
from allennlp_parallel_predict.worker.worker import Worker
from tests.support.recording import RecordingPredictor, run


class Uncompared:
    """In place of a list of calls, which would be state."""

    __slots__ = ()

    def append(self, call: str) -> None:
        pass


def test_calls_come_in_the_order_of_predict():
    result, calls = run([{"n": 1}, {"n": 2}], echo_inputs=True)
    assert calls == ['load {"n": 1}', 'load {"n": 2}', "predict 1,2", "dump 1", "dump 2"]
    assert result.outputs == ["1\n", "2\n"]
    assert result.descriptions == ['{"n": 1}', '{"n": 2}']
    assert (result.number, result.fatal, result.failures) == (7, None, [])


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
