import math

import pytest
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.messages import BatchKind, WorkerOptions
from allennlp_parallel_predict.data.batching import InOrderBatching
from allennlp_parallel_predict.data.inputs import Input
from allennlp_parallel_predict.executors import InProcessExecutor
from allennlp_parallel_predict.pipeline.trial import Trial, mixed_batches, numbered
from tests.support.faults import as_line, faulty_archive, numbered as faulty_inputs

pytestmark = pytest.mark.timeout(60)


def test_it_goes_on_when_all_that_was_submitted_is_finished(tmp_path):
    """As `in_process` takes the next batch only then, and a fast worker may be finished at once."""
    predictor = Predictor.from_path(str(faulty_archive(tmp_path)), "faulty")
    executor = InProcessExecutor()
    lines = map(as_line, faulty_inputs(10))
    inputs = [Input(n, n + 1, line) for n, line in enumerate(lines)]
    with executor.preparing():
        executor.start(predictor, WorkerOptions())
        batches = mixed_batches(InOrderBatching(2), inputs, BatchKind.LINES)
        trial = Trial(executor, numbered(batches), math.inf)
    assert sorted(trial.outputs) == list(range(10)) and len(trial.arrivals) == 5
