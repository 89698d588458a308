"""Workers that are stuck, stopped or slow, and workers that are replaced in time."""

import os
import signal
import time

import pytest

from allennlp_parallel_predict.common.errors import WorkerTimeout
from allennlp_parallel_predict.executors.pool import launcher
from tests.fixtures.faulty_predictors import FaultyPredictor
from tests.support.faults import numbered, predictor_of, run, without
from tests.support.running import workers

pytestmark = pytest.mark.timeout(90)


class TestAStuckWorker:
    @pytest.mark.parametrize("fault", ["stop", "hang", "deadlock"])
    def test_it_is_ended_and_only_the_culprit_is_lost(self, tmp_path, fault):
        ran = run(
            numbered(20, {6: fault}), tmp_path, batch_size=2, batch_timeout=0.3, max_retries=0
        )
        assert (ran.failed, ran.output) == ([6], without(20, 6))
        assert ran.errors[0]["type"].endswith("WorkerTimeout")
        assert "batch_timeout" in ran.errors[0]["message"]

    def test_raise(self, tmp_path):
        with pytest.raises(WorkerTimeout, match="input line 4"):
            run(
                numbered(20, {3: "deadlock"}),
                tmp_path,
                on_error="raise",
                batch_size=1,
                batch_timeout=0.3,
                max_retries=0,
            )

    def test_stopped_from_outside(self, tmp_path):
        def inputs():
            for n in range(60):
                if n == 20:
                    workers()[0].suspend()
                yield {"n": n, "do": "sleep", "seconds": 0.02}

        ran = run(inputs(), tmp_path, batch_timeout=0.5)
        assert (ran.output, ran.errors, ran.restarts) == (without(60), [], 1)

    def test_stopped_while_it_loads(self, tmp_path, monkeypatch):
        def fork_and_stop_the_first(*args):
            process = fork(*args)
            if not (tmp_path / "stopped").exists():
                process.signal(signal.SIGSTOP)
                (tmp_path / "stopped").touch()
            return process

        fork = launcher.fork_worker
        monkeypatch.setattr(launcher, "fork_worker", fork_and_stop_the_first)
        slow = {n: {"do": "sleep", "seconds": 0.2} for n in range(40)}
        ran = run(numbered(40, slow), tmp_path, batch_size=1, batch_timeout=0.4)
        assert (ran.output, ran.errors, ran.restarts) == (without(40), [], 1)

    def test_slow_is_not_stuck(self, tmp_path):
        """Every batch has its own time, also when the worker had it in hand long before."""
        slow = {n: {"do": "sleep", "seconds": 0.35} for n in range(8)}
        ran = run(numbered(8, slow), tmp_path, batch_size=1, num_workers=1, batch_timeout=0.6)
        assert (ran.output, ran.restarts) == (without(8), 0)

    def test_the_time_that_this_process_was_held_up_is_not_the_workers(self, tmp_path):
        """As by Ctrl-Z, or by whoever reads the output."""

        def inputs():
            for n in range(40):
                if n % 10 == 5:
                    time.sleep(0.5)
                yield {"n": n, "do": "sleep", "seconds": 0.05}

        ran = run(inputs(), tmp_path, batch_size=1, batch_timeout=0.2, max_retries=0)
        assert (ran.output, ran.restarts) == (without(40), 0)

    def test_it_is_reported_when_there_is_no_timeout(self, tmp_path, monkeypatch, caplog):
        monkeypatch.setattr("allennlp_parallel_predict.executors.pool.handle._QUIET", 0.3)
        slow = {"do": "sleep", "seconds": 2.5}
        run(numbered(4, {1: slow}), tmp_path, batch_size=2)
        assert "shown no life for" in caplog.text and "input lines 1-2" in caplog.text


class TestRecycling:
    @pytest.mark.parametrize("max_batches", [1, 3])
    def test_workers_are_replaced(self, tmp_path, max_batches):
        class Telling(FaultyPredictor):
            def dump_line(self, outputs):
                return f"{os.getpid()}\n"

        predictor = predictor_of(Telling)
        ran = run(
            numbered(24),
            tmp_path,
            batch_size=2,
            predictor=predictor,
            max_batches_per_worker=max_batches,
        )
        processes = ran.output.split()
        assert len(processes) == 24
        assert all(processes.count(p) <= 2 * max_batches for p in processes)
        assert ran.restarts == 0

    def test_with_deaths(self, tmp_path):
        inputs = numbered(60, {n: "kill" for n in range(2, 60, 9)})
        ran = run(inputs, tmp_path, batch_size=2, max_batches_per_worker=2)
        assert ran.failed == list(range(2, 60, 9))
