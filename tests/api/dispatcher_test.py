"""The Python interface in processes with threads, and the end of its workers."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
import pytest
import torch
from allennlp.predictors import Predictor

from allennlp_parallel_predict import ParallelPredictor
from allennlp_parallel_predict.common.errors import PredictorClosed
from tests.support.pools import ARCHIVE, WORDS, assert_collected, faulty, in_fork, numbers
from tests.support.running import workers

pytestmark = pytest.mark.timeout(90)


class TestThreads:
    def test_each_gets_its_own_results(self):
        with faulty() as predictor, ThreadPoolExecutor(8) as threads:
            inputs = [{"n": n} for n in range(300)]
            assert numbers(threads.map(predictor.predict_json, inputs)) == list(range(300))

            def stream(k):
                own = ({"n": k * 1000 + n} for n in range(100))
                return numbers(predictor.predict_stream(own, batch_size=3))

            for k, got in enumerate(threads.map(stream, range(8))):
                assert got == [k * 1000 + n for n in range(100)]

    def test_a_long_call_holds_nobody_up(self):
        with faulty() as predictor, ThreadPoolExecutor(1) as thread:
            predictor.predict_json({"n": 0})  # the first shows whether the model keeps state
            call = thread.submit(predictor.predict_json, {"n": 0, "do": "sleep", "seconds": 3})
            time.sleep(0.1)
            for n in range(100):
                assert predictor.predict_json({"n": n})["n"] == n
            assert not call.done()

    def test_after_torch_has_used_several_threads(self, archive):
        def use_torch_and_predict():
            torch.set_num_threads(2)
            square = torch.rand(600, 600)
            square @ square
            single = Predictor.from_archive(archive)
            for threads in (1, 2):
                with ParallelPredictor.from_archive(
                    archive, num_workers=2, settings={"executor.threads_per_worker": threads}
                ) as predictor:
                    torch.set_num_threads(threads)
                    # A batch that is large enough for torch to use its threads.
                    expected = single.predict_batch_json(WORDS * 2)
                    assert predictor.predict_batch_json(WORDS * 2) == expected

        in_fork(use_torch_and_predict)


class TestKilledWorkers:
    def test_no_call_fails_however_often_they_are_killed(self):
        """Also while they load, and several times in a row."""
        with faulty(num_workers=1, max_retries=20) as predictor, ThreadPoolExecutor(4) as threads:
            predictor.predict_json({"n": 0})
            slow = [{"n": n, "do": "sleep", "seconds": 0.3} for n in range(4)]
            calls = [threads.submit(predictor.predict_json, inputs) for inputs in slow]
            killed = set()
            while len(killed) < 9:
                for worker in workers():
                    if worker.pid not in killed:
                        killed.add(worker.pid)
                        with suppress(psutil.NoSuchProcess):
                            worker.kill()
            assert numbers(call.result() for call in calls) == [0, 1, 2, 3]
            assert predictor.statistics().restarts >= 9
            assert predictor.statistics().failures == 0


class TestTheEnd:
    def test_closing_finishes_what_others_wait_for(self):
        with ThreadPoolExecutor(1) as thread:
            with faulty() as predictor:
                slow = {"n": 4, "do": "sleep", "seconds": 0.5}
                call = thread.submit(predictor.predict_json, slow)
                time.sleep(0.1)
            assert call.result()["n"] == 4
        with pytest.raises(PredictorClosed):
            predictor.predict_json({"n": 1})
        predictor.close()

    def test_an_error_in_the_block_ends_it_at_once(self):
        with ThreadPoolExecutor(1) as thread:
            with pytest.raises(KeyError), faulty() as predictor:
                call = thread.submit(predictor.predict_json, {"n": 0, "do": "hang"})
                time.sleep(0.1)
                raise KeyError
            with pytest.raises(PredictorClosed):
                call.result()

    def test_letting_go_of_it_is_enough(self):
        predictor = faulty()
        predictor.itself = predictor  # type: ignore[attr-defined]
        assert len(workers()) == 2
        del predictor
        assert_collected()

    def test_it_knows_that_it_belongs_to_another_process(self):
        with faulty() as predictor:

            def use_it():
                with pytest.raises(PredictorClosed, match="another|forked"):
                    predictor.predict_json({"n": 1})
                predictor.close()

            in_fork(use_it)
            assert predictor.predict_json({"n": 1})["n"] == 1

    def test_workers_end_with_a_killed_process(self):
        reader, writer = os.pipe()

        def open_and_die():
            predictor = faulty()
            predictor.predict_json({"n": 1})
            os.write(writer, json.dumps([worker.pid for worker in workers()]).encode())
            os.kill(os.getpid(), signal.SIGKILL)

        in_fork(open_and_die)
        pids = json.loads(os.read(reader, 1000))
        deadline = time.monotonic() + 3
        while any(map(psutil.pid_exists, pids)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(pids) == 2 and not any(map(psutil.pid_exists, pids))

    def test_workers_do_not_hold_the_processes_connections(self):
        with faulty(num_workers=1) as predictor:
            predictor.predict_json({"n": 1})
            ours, theirs = socket.socketpair()
            workers()[0].kill()
            predictor.predict_json({"n": 1})  # in a worker that was forked with them open
            ours.close()
            theirs.settimeout(3)
            assert theirs.recv(1) == b""
            theirs.close()


SCRIPT = """
import os, sys, threading
from allennlp_parallel_predict import ParallelPredictor  # first, for the shims
import allennlp_models.generation, psutil, torch
from allennlp.models import load_archive
from allennlp.predictors import Predictor

@Predictor.register("mine")
class Mine(Predictor):
    def predict_json(self, inputs):
        return {"word": inputs["source"], "pid": os.getpid()}

torch.set_num_threads(2)
torch.rand(600, 600) @ torch.rand(600, 600)
archive = load_archive(sys.argv[1])
opened = []
for method in ("fork", "spawn"):
    predictor = ParallelPredictor.from_archive(
        archive,
        "mine",
        num_workers=1,
        settings={"executor": {"threads_per_worker": 2, "start_method": method}},
    )
    output = predictor.predict_json({"source": method})
    assert output["word"] == method and output["pid"] != os.getpid()
    opened.append(predictor)
print(*(child.pid for child in psutil.Process().children()))
"""


def test_a_script_without_a_guard_that_closes_nothing(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), str(ARCHIVE)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=80,
    )
    assert run.returncode == 0, run.stderr.decode()[-3000:]
    pids = [int(pid) for pid in run.stdout.split()]
    assert len(pids) >= 2
    assert not any(map(psutil.pid_exists, pids))
