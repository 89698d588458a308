"""Some seconds of an executor, measured."""

import json
import math

from allennlp_parallel_predict.common.messages import BatchKind, OnError, WorkerOptions
from allennlp_parallel_predict.data.batching import InOrderBatching
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.executors import InProcessExecutor
from allennlp_parallel_predict.pipeline.trial import Trial, mixed_batches, numbered
from tests.support.faults import numbered as inputs_of
from tests.support.faults import predictor_of


def batches_of(inputs, size=2):
    inputs = [Input(n, n + 1, json.dumps(value) + "\n") for n, value in enumerate(inputs)]
    return mixed_batches(InOrderBatching(size), inputs, BatchKind.LINES)


def trial_of(inputs, seconds, waits=False):
    executor = InProcessExecutor()
    executor.start(predictor_of(), WorkerOptions(OnError.SKIP, profile="times"))
    return Trial(executor, numbered(batches_of(inputs)), seconds, waits)


def test_everything_within_the_time():
    trial = trial_of(inputs_of(8, {3: "raise"}), seconds=60)
    assert sorted(trial.outputs) == [0, 1, 2, 4, 5, 6, 7]
    assert list(trial.failures) == [4] and sum(count for _, count in trial.arrivals) == 8
    assert trial.lines_per_second() > 0 and trial.memory > 1 << 20


def test_it_goes_on_when_all_that_was_submitted_is_finished():
    """As `in_process` takes the next batch only then, and a fast worker may be finished at once."""
    trial = trial_of(inputs_of(10), math.inf)
    assert sorted(trial.outputs) == list(range(10)) and len(trial.arrivals) == 5


def test_with_no_time_left_it_waits_for_one_result_if_it_is_told_to():
    slow = {n: {"do": "sleep", "seconds": 0.01} for n in range(100)}
    trial = trial_of(inputs_of(100, slow), seconds=0.0, waits=True)
    assert 1 <= len(trial.arrivals) < 50


def test_short_and_long_batches_take_turns():
    inputs = [{"n": n, "pad": "x" * n} for n in range(40)]
    batches = batches_of(inputs)
    lengths = [sum(map(len, batch.values)) for batch in batches]
    assert sorted(n for batch in batches for n in batch.positions) == list(range(40))
    assert max(lengths[:5]) > 1.4 * min(lengths[:5])
    assert [batch.number for batch in numbered(batches)] == list(range(20))
