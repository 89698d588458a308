"""The worker on a node, and the memory that it shares."""

import faulthandler
import os
import pickle
import signal

import numpy
import pytest
import torch

from allennlp_parallel_predict.common.messages import BatchKind, WorkerOptions
from allennlp_parallel_predict.executors.ray import actor
from allennlp_parallel_predict.executors.ray.actor import ActorSetup, RayWorker
from allennlp_parallel_predict.models.state import RandomStates
from tests.support.faults import predictor_of

FOR_EVER = []
"""Memory that nobody can write to must not be used for anything else."""


class TestTheSharedModel:
    def worker(self, memory_of=lambda memory: memory):
        predictor = predictor_of()
        predictor._model.weight.data += 1
        pickled, memory = actor.pack(predictor)
        FOR_EVER.append(memory)
        worker = RayWorker()
        worker._set_up(
            pickled, memory_of(memory), ActorSetup(WorkerOptions(), 1, False, RandomStates.read())
        )
        return worker, memory

    def predict(self, worker, shared):
        return pickle.loads(
            worker.predict(pickle.dumps((0, BatchKind.LINES, ['{"n": 1}'], 0, False)), shared)
        )

    def test_parameters_are_in_the_memory_or_the_workers_own(self):
        worker, memory = self.worker()
        (weight,) = worker._predictor._model.parameters()
        start = memory.ctypes.data
        for shared in (True, False, False, True):
            self.predict(worker, shared)
            assert (start < weight.data_ptr() < start + memory.nbytes) == shared
            assert weight.tolist() == [1.0] * 8

    def test_buffers_are_always_its_own(self):
        worker, memory = self.worker()
        before = memory.copy()
        worker._predictor._model.seen += 1
        assert (memory == before).all()

    def test_nobody_can_write_to_the_memory(self):
        pid = os.fork()
        if pid == 0:
            faulthandler.disable()
            worker, _ = self.worker()
            with torch.no_grad():
                next(worker._predictor._model.parameters()).add_(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == signal.SIGSEGV

    @pytest.mark.parametrize("offset", [0, 64, 4032])
    def test_it_may_lie_anywhere(self, offset):
        def moved(memory):
            larger = numpy.zeros(memory.nbytes + 2 * 4096, dtype=numpy.uint8)
            start = -larger.ctypes.data % 4096 + offset
            larger[start : start + memory.nbytes] = memory
            FOR_EVER.append(larger)
            return larger[start : start + memory.nbytes]

        worker, _ = self.worker(moved)
        assert next(worker._predictor._model.parameters()).tolist() == [1.0] * 8
