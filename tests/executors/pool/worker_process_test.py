"""A spawned worker that is to share memory of a GPU, where that is not possible."""

import json
import logging
import time

import pytest
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.messages import Batch, BatchKind, WorkerOptions
from allennlp_parallel_predict.common.serialization import dumps, load_result
from allennlp_parallel_predict.executors.pool.worker_process import spawn_worker
from allennlp_parallel_predict.models import sharing
from allennlp_parallel_predict.models.state import RandomStates
from allennlp_parallel_predict.worker.process import READY, WorkerSetup
from tests.support.faults import faulty_archive, wait_until

pytestmark = pytest.mark.timeout(120)


def fail(where):
    raise RuntimeError(f"CUDA error: invalid argument, in the {where}")


class NotExported:
    def __reduce__(self):
        fail("parent")


class NotImported:
    def __reduce__(self):
        return fail, ("worker",)


@pytest.mark.parametrize("on_gpu, where", [(NotExported(), "parent"), (NotImported(), "worker")])
def test_it_has_a_model_of_its_own_and_says_so(tmp_path, caplog, capfd, on_gpu, where):
    predictor = Predictor.from_path(str(faulty_archive(tmp_path)), "faulty")
    states = RandomStates.read()
    setup = WorkerSetup(WorkerOptions(), 1, None, -1, True, time.monotonic(), states)
    with caplog.at_level(logging.WARNING):
        worker = spawn_worker(sharing.pack(predictor), setup, on_gpu)
    received = []

    def answers():
        received.extend(map(bytes, worker.channel.receive()[0]))
        return received

    try:
        assert wait_until(answers, 90)[0] == READY
        batch = Batch(0, BatchKind.LINES, [json.dumps({"n": 5})], [0], [1])
        worker.channel.send(dumps((*batch.to_message(), True)))
        wait_until(lambda: len(answers()) > 1)
        assert load_result(received[1]).outputs == ['{"n": 5, "pad": ""}\n']
    finally:
        worker.signal(9)
        worker.wait(10)
    said = caplog.text if where == "parent" else capfd.readouterr().err
    assert f"a model of its own (CUDA error: invalid argument, in the {where})" in said
