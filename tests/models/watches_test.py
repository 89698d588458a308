"""Every way to keep something from batch to batch is noticed, and then one worker does it all."""

import json

import numpy
import pytest
import torch

from allennlp_parallel_predict.common.messages import Batch, BatchKind, WorkerOptions
from allennlp_parallel_predict.worker.worker import Worker
from tests.fixtures import stateful_predictors
from tests.support.faults import numbered, predictor_of, run

pytestmark = pytest.mark.timeout(120)


def stateful(keeps):
    torch.manual_seed(1)
    numpy.random.seed(1)
    stateful_predictors.random.seed(1)
    stateful_predictors.GENERATOR.seed(1)
    stateful_predictors.NUMBER = 0
    stateful_predictors.CACHE.clear()
    stateful_predictors.StatefulPredictor.total = 0

    def make(model, reader):
        reader = stateful_predictors.StatefulReader()
        return stateful_predictors.StatefulPredictor(model, reader, keeps)

    return predictor_of(make)


@pytest.mark.parametrize("keeps", stateful_predictors.WAYS)
def test_several_workers_give_the_bytes_of_one_process(tmp_path, keeps):
    predictor = stateful(keeps)
    with torch.no_grad():
        outputs = [predictor.predict_json({"n": n}) for n in range(12)]
    expected = "".join(map(predictor.dump_line, outputs))
    kept = [output["kept"] for output in outputs]
    assert len(set(map(str, kept))) > 1, "this predictor keeps nothing"
    ran = run(numbered(12), tmp_path, predictor=stateful(keeps), num_workers=3, on_error="raise")
    assert ran.output == expected
    assert ran.executor.num_workers == 1 and "while it predicts" in ran.executor.state_change


class Lazy(stateful_predictors.StatefulPredictor):
    """Makes what it needs at its first input, and keeps nothing of that input."""

    def __init__(self, model, reader):
        super().__init__(model, reader, "a list")
        self.tool = None
        self.generator = None

    def predict_json(self, inputs):
        self.tool = self.tool or stateful_predictors.Features()
        self.local = [inputs["n"]][0:0] or None
        return {"n": inputs["n"], "words": len(self.words)}

    @stateful_predictors.cached_property
    def words(self):
        return ["a", "b"]


def changes_of(predictor, count=6):
    worker = Worker(predictor, WorkerOptions())
    batches = (
        Batch(n, BatchKind.LINES, [json.dumps({"n": n})], [n], [n + 1]) for n in range(count)
    )
    return [worker.predict(batch).state_change for batch in batches]


def test_what_is_made_at_its_first_use_is_no_state():
    predictor = predictor_of(Lazy)
    assert changes_of(predictor) == [None] * 6


def test_what_was_made_at_its_first_use_is_watched_from_then_on():
    class Late(Lazy):
        def predict_json(self, inputs):
            output = super().predict_json(inputs)
            if inputs["n"] == 3:
                self.tool.by_path["x"] = 1
            return output

    predictor = predictor_of(Late)
    changes = changes_of(predictor)
    assert "tool.by_path" in changes[3] and changes[:3] == [None] * 3 == changes[4:] + [None]
