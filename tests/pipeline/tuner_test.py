"""The search for settings, on predictors that are known to like some of them."""

import json
import time

import pytest

from allennlp_parallel_predict.common.messages import BatchKind
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.data.limits import sample
from allennlp_parallel_predict.data.sources import LineSource
from allennlp_parallel_predict.pipeline.tuner import Candidate, Measurement, Tuner, executors_for
from tests.fixtures.timed_predictors import TimedModel, TimedPredictor

pytestmark = pytest.mark.timeout(90)


def inputs(count, **more):
    line = json.dumps(more)
    return [Input(n, n + 1, line + "\n") for n in range(count)]


def measurement(*rates, same=True, memory=100.0, workers=2):
    return Measurement(Candidate(workers, 1, 8), rates, memory, same)


class BatchesPredictor(TimedPredictor):
    """A batch takes as long as one input, so large batches and all workers are best."""

    def __init__(self):
        super().__init__()
        self._model.forward = self._forward

    def _forward(self, tokens, inputs):
        time.sleep(0.01)
        return TimedModel.forward(self._model, tokens, inputs)


class TestSearch:
    def test_it_finds_many_workers_and_large_batches(self):
        tuner = Tuner(BatchesPredictor(), inputs(300), BatchKind.LINES, cpus=2)
        best = tuner.search(5.0)[0]
        assert best.candidate.workers == 2 and best.candidate.batch_size >= 16
        assert best.same_bytes is True and best.memory > 1 << 20

    def test_it_notices_other_bytes(self):
        class Differing(TimedPredictor):
            def predict_batch_json(self, inputs):
                outputs = super().predict_batch_json(inputs)
                return [{**output, "length": len(inputs)} for output in outputs]

        tuner = Tuner(Differing(), inputs(64), BatchKind.LINES, cpus=1)
        assert tuner.attempt(Candidate(1, 1, 1), 0.3).same_bytes is True
        assert tuner.attempt(Candidate(1, 1, 8), 0.3).same_bytes is False

    def test_padding_costs_so_bucket_wins(self):
        class Padded(TimedPredictor):
            def __init__(self):
                super().__init__()
                self._model.forward = self._forward

            def _forward(self, tokens, inputs):
                time.sleep(0.001 * tokens["tokens"]["tokens"].shape[1])
                return TimedModel.forward(self._model, tokens, inputs)

        lines = ['{"length": %d}%s\n' % (n % 10 * 8 + 1, " " * (n % 10)) for n in range(300)]
        mixed = [Input(n, n + 1, line) for n, line in enumerate(lines)]
        tuner = Tuner(Padded(), mixed, BatchKind.LINES, cpus=1)
        rates = {
            name: tuner.attempt(Candidate(1, 1, 16, name), 1.5).lines_per_second
            for name in ("in_order", "bucket")
        }
        assert rates["bucket"] > 1.2 * rates["in_order"]

    def test_a_candidate_that_cannot_run_is_the_last(self):
        tuner = Tuner(TimedPredictor(), inputs(20), BatchKind.LINES, cpus=1)
        tuner.attempt(Candidate(1, 1, 4), 0.2)
        tuner._note(Measurement(Candidate(1, 1, 8), (0.0,), 0.0))
        assert [t.candidate.batch_size for t in tuner.ranked()] == [4, 8]

    def test_which_pools(self):
        assert executors_for(1) == [(1, 1)]
        assert executors_for(2) == [(1, 1), (1, 2), (2, 1)]
        assert executors_for(6) == [(3, 1), (1, 6), (2, 3), (4, 1), (6, 1)]

    def test_predict_is_measured_in_its_own_process(self):
        tuner = Tuner(TimedPredictor(), inputs(20), BatchKind.LINES, cpus=2, batch_size=4)
        tuner.attempt(Candidate(1, 1, 4), 0.2)
        found = tuner.attempt(tuner.predict, 0.2)
        assert found.same_bytes is True and found.lines_per_second > 0 and found.memory > 1 << 20
        assert [one.candidate.is_predict for one in tuner.ranked()] == [False]

    def test_measurements_that_disagree_are_repeated_with_a_warning(self):
        told = []
        tuner = Tuner(TimedPredictor(), inputs(20), BatchKind.LINES, cpus=1, tell=told.append)
        steady, unsteady = Candidate(1, 1, 4), Candidate(1, 1, 8)
        tuner.measurements = {
            steady: Measurement(steady, (100.0, 95.0), 0.0),
            unsteady: Measurement(unsteady, (100.0, 60.0), 0.0),
        }
        tuner._repeat_unsteady([steady, unsteady], 0.2)
        assert [len(one.rates) for one in tuner.measurements.values()] == [2, 3]
        assert "differ by 40%" in told[0] and "repeated" in told[0]


def test_the_sample_is_from_all_over_the_file(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f"{n}\n" for n in range(1000)))
    taken = sample(LineSource(str(path)), 100)
    assert [item.value for item in taken] == [f"{n}\n" for n in range(0, 1000, 10)]
    assert len(sample(LineSource(str(path)), 5000)) == 1000
