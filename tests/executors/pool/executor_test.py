"""A pool of real processes that die, hang, stop and run out of memory."""

import json
import resource
import signal
import time
import psutil
import pytest
from allennlp_parallel_predict.common.errors import SettingsError, WorkerDied
from allennlp_parallel_predict.common.messages import Batch, BatchKind, WorkerOptions
from allennlp_parallel_predict.data.batching import BucketBatching
from allennlp_parallel_predict.executors import ProcessPoolExecutor
from allennlp_parallel_predict.executors.pool import launcher
from allennlp_parallel_predict.executors.pool import worker_process
from tests.support.faults import (
    ListSource,
    expected,
    numbered,
    predictor_of,
    run,
    wait_until,
    without,
)
from tests.support.running import workers


pytestmark = pytest.mark.timeout(90)


DEATHS = {
    "kill": "SIGKILL",
    "segv": "SIGSEGV",
    "exit": "exit status 7",
    "exit 0": "before its work was done",
}


def batch_of(item):
    """A batch of one input."""
    number = item["n"]
    return Batch(number, BatchKind.LINES, [json.dumps(item)], [number], [number + 1])


class TestADeadWorker:
    @pytest.mark.parametrize("workers", [1, 3])
    @pytest.mark.parametrize("fault", DEATHS)
    def test_only_the_culprit_is_lost(self, tmp_path, fault, workers):
        ran = run(numbered(40, {9: fault}), tmp_path, num_workers=workers)
        assert ran.output == without(40, 9)
        (error,) = ran.errors
        assert (error["line"], error["input"]) == (10, json.dumps({"n": 9, "do": fault}))
        assert error["type"] == "allennlp_parallel_predict.common.errors.WorkerDied"
        assert DEATHS[fault] in error["message"] and "input line 10" in error["message"]

    def test_a_batch_that_kills_once_is_only_tried_again(self, tmp_path):
        once = {"do": "kill", "once": str(tmp_path / "once")}
        ran = run(numbered(40, {9: once}), tmp_path)
        assert (ran.output, ran.errors, ran.restarts) == (without(40), [], 1)

    def test_the_first_and_the_last_of_a_batch_and_two_beside_each_other(self, tmp_path):
        ran = run(numbered(24, {0: "kill", 11: "segv", 12: "exit", 23: "kill"}), tmp_path)
        assert ran.failed == [0, 11, 12, 23]
        assert ran.output == without(24, 0, 11, 12, 23)

    def test_two_beside_each_other_in_batches_of_one_and_one_worker(self, tmp_path):
        inputs = numbered(12, {4: "kill", 5: "kill"})
        ran = run(inputs, tmp_path, batch_size=1, num_workers=1)
        assert (ran.failed, ran.output) == ([4, 5], without(12, 4, 5))

    def test_a_whole_batch_of_two(self, tmp_path):
        ran = run(numbered(12, {4: "kill", 5: "kill"}), tmp_path, batch_size=2, num_workers=1)
        assert (ran.failed, ran.output) == ([4, 5], without(12, 4, 5))

    @pytest.mark.parametrize("max_retries", [0, 1, 5])
    def test_the_number_of_retries(self, tmp_path, max_retries):
        ran = run(numbered(8, {1: "kill"}), tmp_path, num_workers=1, max_retries=max_retries)
        assert (ran.failed, ran.output) == ([1], without(8, 1))
        assert ran.restarts == 2 * (max_retries + 1)  # the batch, and then the input

    def test_only_the_one_that_it_was_at_is_to_blame(self, tmp_path):
        prefetch = []

        class Watched(ProcessPoolExecutor):
            def _after_death(self, worker, *args):
                prefetch.append(len(worker.tasks))
                return super()._after_death(worker, *args)

        faults = {n: {"do": "kill", "once": str(tmp_path / str(n))} for n in range(2000, 2900, 100)}
        ran = run(
            numbered(3000, {**faults, 2950: "segv"}),
            tmp_path,
            batch_size=2,
            executor=Watched(num_workers=2),
        )
        assert (ran.failed, ran.output) == ([2950], without(3000, 2950))
        assert ran.restarts == len(prefetch) == len(faults) + 4
        assert max(prefetch) == 2

    def test_it_is_replaced_in_milliseconds_while_others_go_on(self, tmp_path):
        calm = run(numbered(200), tmp_path, batch_size=1)
        faults = {n: {"do": "kill", "once": str(tmp_path / str(n))} for n in range(5, 200, 10)}
        ran = run(numbered(200, faults), tmp_path, batch_size=1)
        assert (ran.output, ran.restarts) == (calm.output, 20)
        assert (ran.seconds - calm.seconds) / 20 < 0.25

    def test_a_process_that_it_started_and_that_holds_its_connection_open(self, tmp_path):
        once = {"do": "leave a child", "seconds": 1000, "once": str(tmp_path / "once")}
        ran = run(numbered(12, {5: once}), tmp_path)
        assert (ran.output, ran.restarts) == (without(12), 1)

    @pytest.mark.parametrize("start_method", ["fork", "spawn"])
    @pytest.mark.parametrize("then", [None, "kill", "write into sockets"])
    def test_the_processes_that_it_started_end_with_it(self, tmp_path, start_method, then):
        child = {"do": "start a child", "pid_file": str(tmp_path / "pids")}
        faults = {2: child, **({3: then} if then else {})}
        ran = run(numbered(6, faults), tmp_path, batch_size=1, start_method=start_method)
        assert ran.failed == ([3] if then else [])
        pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        wait_until(lambda: not any(is_running(pid) for pid in pids))

    @pytest.mark.parametrize("batch_size", [1, 4])
    def test_a_predictor_that_writes_into_the_connection(self, tmp_path, batch_size):
        ran = run(numbered(12, {5: "write into sockets"}), tmp_path, batch_size=batch_size)
        assert (ran.output, ran.failed) == (without(12, 5), [5])
        assert "wrote into its connection" in ran.errors[0]["message"]

    def test_raise_names_the_line_and_keeps_what_was_before(self, tmp_path):
        with pytest.raises(WorkerDied, match="SIGKILL.* input line 10") as caught:
            run(numbered(40, {9: "kill"}), tmp_path, on_error="raise")
        assert '{"n": 9, "do": "kill"}' in str(caught.value.__cause__)
        assert (tmp_path / "output").read_text() == expected(range(9))

    def test_placeholder(self, tmp_path):
        ran = run(numbered(8, {1: "kill"}), tmp_path, on_error="placeholder")
        line = ran.output.splitlines()[1]
        assert json.loads(line)["error"]["line"] == 2
        assert ran.output.replace(line + "\n", "") == without(8, 1)

    def test_large_results_before_a_death_are_not_blamed(self, tmp_path):
        """The worker has sent the result of a batch when the next one kills it."""
        inputs = numbered(30, {n: {"pad": 3_000_000} for n in range(0, 30, 2)})
        for n in range(1, 30, 6):
            inputs[n]["do"] = "kill"
        ran = run(inputs, tmp_path, batch_size=1, max_retries=0)
        assert ran.failed == list(range(1, 30, 6))
        assert [json.loads(o)["n"] for o in ran.output.splitlines() if o[:1] == "{"] == [
            n for n in range(30) if n % 6 != 1
        ]

    def test_out_of_order_batches(self, tmp_path):
        inputs = numbered(60, {n: {"size": "y" * (n * 37 % 50)} for n in range(60)})
        inputs[17]["do"], inputs[44]["do"] = "kill", "raise"
        ran = run(inputs, tmp_path, batching=BucketBatching(4, window=20))
        assert (ran.failed, ran.output) == ([17, 44], without(60, 17, 44))


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class TestMemory:
    @pytest.mark.parametrize("fault", ["memory", "allocator", "cuda memory"])
    def test_a_batch_that_is_too_large_is_halved(self, tmp_path, fault):
        too_large = {n: {"do": fault, "with": 3} for n in range(16)}
        ran = run(numbered(16, too_large), tmp_path, batch_size=8, on_error="raise")
        assert (ran.output, ran.restarts) == (without(16), 0)

    @pytest.mark.parametrize("fault", ["memory", "allocator", "cuda memory"])
    def test_an_input_that_is_too_large_alone(self, tmp_path, fault):
        ran = run(numbered(16, {5: fault}), tmp_path, batch_size=8)
        assert (ran.failed, ran.output) == ([5], without(16, 5))

    def test_50_megabytes_both_ways_at_once(self, tmp_path):
        large = {n: {"pad": 50_000_000, "text": "y" * 50_000_000} for n in range(4)}
        ran = run(numbered(6, large), tmp_path, batch_size=1)
        sizes = [len(line) for line in ran.output.splitlines() if line.startswith("{")]
        assert [size > 50_000_000 for size in sizes] == [True] * 4 + [False] * 2

    def test_a_slow_first_batch_and_a_long_input(self, tmp_path):
        """What can be neither predicted nor written yet is not read."""
        ahead = 0

        class Watched(ListSource):
            def __iter__(self):
                nonlocal ahead
                for item in super().__iter__():
                    if not (tmp_path / "done").exists():
                        ahead = max(ahead, self.read)
                    yield item

        inputs = numbered(20_000, {0: {"do": "sleep", "seconds": 2}})
        inputs[1] = {"n": 1, "do": "sleep", "seconds": 0, "once": str(tmp_path / "done")}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ran = run(Watched(inputs), tmp_path, batch_size=2, allow_stateful_model=True)
        assert ran.output == without(20_000)
        # The others are so short that each worker may have 64 of them in hand.
        assert ahead <= 2 * 3 * (64 * 2 + 2) + 2
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KB

    def test_large_results_behind_a_slow_batch(self, tmp_path):
        inputs = numbered(100, {n: {"pad": 10_000_000} for n in range(1, 100)})
        inputs[0].update(do="sleep", seconds=3)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        ran = run(inputs, tmp_path, batch_size=1)
        # 33 of them wait while it is not known yet whether the model keeps state.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KB
        assert ran.path.stat().st_size > 990_000_000


class TestOrder:
    def test_stragglers(self, tmp_path):
        slow = {n: {"do": "sleep", "seconds": n * 7 % 5 * 0.02} for n in range(0, 120, 3)}
        assert run(numbered(120, slow), tmp_path, num_workers=4).output == without(120)

    def test_the_last_batches_wait_for_whoever_is_free(self):
        executor = ProcessPoolExecutor(num_workers=2, allow_stateful_model=True)
        executor.start(predictor_of(), WorkerOptions())
        finished = []
        for item in numbered(4, {0: {"do": "sleep", "seconds": 1}}):
            executor.submit(batch_of(item))
        while not executor.is_idle():
            finished += [result.number for result in executor.collect()]
        executor.close()
        assert finished == [1, 2, 3, 0]

    def test_what_comes_before_a_slow_batch_does_not_wait_for_it(self):
        executor = ProcessPoolExecutor(num_workers=1)
        executor.start(predictor_of(), WorkerOptions())
        inputs, came = numbered(1100, {1000: {"do": "sleep", "seconds": 1}}), {}
        while inputs or not executor.is_idle():
            while inputs and executor.has_room():
                executor.submit(batch_of(inputs.pop(0)))
            came.update((result.number, time.monotonic()) for result in executor.collect())
        executor.close()
        assert list(came) == list(range(1100))
        assert came[1000] - came[999] > 0.8


class TestSpawn:
    """Starting takes seconds here, so many faults share a run."""

    def test_deaths_and_timeouts(self, tmp_path):
        faults = {
            3: "kill",
            14: "raise",
            17: "memory",
            20: {"pad": 50_000_000, "text": "y" * 50_000_000},
            22: "stop",
            36: "segv",
        }
        ran = run(
            numbered(40, faults),
            tmp_path,
            batch_size=1,
            start_method="spawn",
            batch_timeout=4.0,
            max_retries=0,
        )
        assert ran.failed == [3, 14, 17, 22, 36]
        assert ran.restarts == 3
        numbers = [json.loads(o)["n"] for o in ran.output.splitlines() if o.startswith("{")]
        assert numbers == [n for n in range(40) if n not in ran.failed]

    def test_no_worker_can_load(self, tmp_path, monkeypatch):
        monkeypatch.setattr(worker_process, "_BOOT", "import os; os.kill(os.getpid(), 9)")
        with pytest.raises(WorkerDied, match="SIGKILL.*before it had its model.*third"):
            run(numbered(10), tmp_path, start_method="spawn")

    def test_ended_while_it_loads(self):
        executor = ProcessPoolExecutor(num_workers=2, start_method="spawn")
        for end in (executor.close, executor.kill):
            executor.start(predictor_of(), WorkerOptions())
            time.sleep(0.3)
            started = time.monotonic()
            end()
            assert time.monotonic() - started < 1.0
            assert psutil.wait_procs(workers(), timeout=3)[1] == []


@pytest.mark.parametrize("count, workers_started", [(4, "1 worker"), (8, "2 workers"), (60, "3 ")])
def test_there_are_no_more_workers_than_batches(tmp_path, count, workers_started):
    slow = {n: {"do": "sleep", "seconds": 0.1} for n in range(count)}
    ran = run(numbered(count, slow), tmp_path, batch_size=4, num_workers=3)
    assert ran.output == without(count)
    assert ran.executor.describe().startswith(workers_started)


class TestAPoolThatCannotStart:
    @pytest.mark.parametrize("has_waiting_callers", [False, True])
    def test_nothing_is_left(self, monkeypatch, has_waiting_callers):
        fork, started = launcher.fork_worker, []

        def fork_twice(*args):
            if len(started) == 2:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            started.append(fork(*args))
            return started[-1]

        monkeypatch.setattr(launcher, "fork_worker", fork_twice)
        executor = ProcessPoolExecutor(num_workers=3)
        with pytest.raises(OSError) as caught:
            # If callers wait, all workers start at once.
            executor.start(predictor_of(), WorkerOptions(), preserve_order=not has_waiting_callers)
            for item in numbered(3):
                executor.submit(batch_of(item))
        assert "cannot start a worker" in caught.value.explanation
        assert [worker.poll() for worker in started] == [-signal.SIGTERM] * 2


@pytest.mark.parametrize(
    "bad", [{"batch_timeout": 0}, {"max_retries": -1}, {"max_batches_per_worker": 0}]
)
def test_settings_that_cannot_be(bad):
    with pytest.raises(SettingsError, match=next(iter(bad))):
        ProcessPoolExecutor(**bad)
