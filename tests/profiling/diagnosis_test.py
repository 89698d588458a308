"""Each rule of the diagnosis against a run that was constructed to trigger it."""

import functools
import time

import pytest

from allennlp_parallel_predict.common.stages import LOADING
from allennlp_parallel_predict.profiling import diagnosis, recorder, report
from allennlp_parallel_predict.profiling.recorder import RunProfile
from allennlp_parallel_predict.worker import profiler
from tests.fixtures.timed_predictors import TimedPredictor
from tests.support.faults import ListSource
from tests.support.profiles import profiled

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(autouse=True)
def four_cpus_by_intel(monkeypatch):
    """What this machine has would decide over some of the rules."""
    monkeypatch.setattr(report, "usable_cpus", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(report, "has_slow_mkl", lambda: False)
    monkeypatch.setattr(profiler, "_seconds_without_cpu", lambda: 0.0)


def tried_again(test):
    """What else the machine does can add a finding that is true: a test may have three tries."""

    @functools.wraps(test)
    def attempts(tmp_path, **fixtures):
        for number in range(3):
            (tmp_path / str(number)).mkdir()
            try:
                return test(tmp_path=tmp_path / str(number), **fixtures)
            except AssertionError:
                if number == 2:
                    raise

    return attempts


def steady(count, **more):
    return [{"forward": 0.005, **more} for _ in range(count)]


class SlowSource(ListSource):
    def __iter__(self):
        for item in super().__iter__():
            time.sleep(0.08)  # so long that a busy machine's delays are short beside it
            yield item


@tried_again
def test_a_calm_run_triggers_nothing(tmp_path):
    ran = profiled(steady(80), tmp_path, num_workers=1)
    assert ran.rules == []
    assert ran.report["utilisation"] > 0.5


@tried_again
def test_no_input_at_all(tmp_path):
    assert profiled([], tmp_path).rules == []


@tried_again
def test_starved_by_the_reader(tmp_path):
    source = SlowSource([{"forward": 0.02} for _ in range(30)])
    ran = profiled(source, tmp_path, batch_size=1, num_workers=1)
    assert ran.rules == ["starved by the reader"]


@tried_again
def test_start_up_dominates(tmp_path):
    profile = RunProfile()
    with profile.stage(LOADING):
        time.sleep(1.1)
    ran = profiled(steady(40), tmp_path, profile=profile, num_workers=1)
    assert ran.rules == ["start-up dominates"]


def test_spawned_workers_that_load_for_long_are_start_up_too(tmp_path):
    ran = profiled(steady(40), tmp_path, num_workers=1, start_method="spawn")
    assert "start-up dominates" in ran.rules
    loading = ran.report["stages"]["starting"]
    # The parent's own start is that of a process and no more; the rest is the wait for the worker.
    assert loading > 1 and ran.report["seconds"]["start_up"] > 0.8 * loading
    assert ran.report["seconds"]["predicting"] < 1 and ran.report["utilisation"] > 0.3


@tried_again
def test_oversubscribed(tmp_path):
    ran = profiled(steady(40), tmp_path, num_workers=2, threads_per_worker=4)
    assert "oversubscribed" in ran.rules
    (text,) = [f["text"] for f in ran.report["diagnosis"] if f["rule"] == "oversubscribed"]
    assert "2 workers with 4 threads each are 8 threads on 4 CPUs" in text


@tried_again
def test_padding(tmp_path):
    inputs = [{"forward": 0.005, "length": 40 if n % 4 == 0 else 2} for n in range(80)]
    ran = profiled(inputs, tmp_path, num_workers=1)
    assert ran.rules == ["padding"]
    padding = {"share": 1 - 46 / 160, "tokens": 920, "with_padding": 3200, "skipped": False}
    assert ran.report["padding"] == padding
    setting = ran.report["diagnosis"][0]["setting"]
    assert setting.startswith('--parallel-overrides \'{"batching.type": "bucket"}\'')


@tried_again
def test_padding_that_costs_nothing_is_no_finding(tmp_path):
    inputs = [{"dump": 0.01, "length": 40 if n % 4 == 0 else 2} for n in range(40)]
    assert "padding" not in profiled(inputs, tmp_path, num_workers=1).rules


@tried_again
def test_stragglers(tmp_path):
    inputs = steady(39) + [{"forward": 0.8}]
    ran = profiled(inputs, tmp_path)
    # On a busy machine the worker that had it may look slow as well.
    assert "stragglers" in ran.rules
    text = ran.report["diagnosis"][ran.rules.index("stragglers")]["text"]
    assert "input lines 37-40" in text


@tried_again
def test_result_transfer_dominates(tmp_path):
    inputs = [{"bytes": 2_000_000} for _ in range(60)]
    ran = profiled(inputs, tmp_path)
    assert "result transfer dominates" in ran.rules
    assert ran.report["bytes"]["from_workers"] > 60 * 2_000_000


@tried_again
def test_one_slow_worker(tmp_path):
    inputs = steady(160, slow=str(tmp_path / "slow"))
    ran = profiled(inputs, tmp_path, batch_size=2)
    assert ran.rules == ["one slow worker"]


@tried_again
def test_swapping(tmp_path, monkeypatch):
    amounts = iter([(0, 0), (1 << 30, 1 << 28)])
    monkeypatch.setattr(recorder, "swapped", lambda: next(amounts))
    ran = profiled(steady(40), tmp_path, num_workers=1)
    assert ran.rules == ["swapping"]
    assert "1,280 MB" in ran.report["diagnosis"][0]["text"]


@tried_again
def test_slow_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "has_slow_mkl", lambda: True)
    ran = profiled([{"forward": 0.02} for _ in range(80)], tmp_path, num_workers=1)
    assert ran.rules == ["slow kernels"]
    assert "MKL_DEBUG_CPU_TYPE=5" in ran.report["diagnosis"][0]["setting"]
    assert "slow kernels" not in profiled(steady(40), tmp_path, num_workers=1).rules


@tried_again
def test_compute_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "usable_cpus", lambda: [0, 1])
    ran = profiled([{"forward": 0.02} for _ in range(160)], tmp_path)
    assert ran.rules == []  # the workers slept, so the CPUs were free
    for worker in ran.report["workers"]:
        worker["cpu_seconds"] = worker["seconds"]
    assert ran.diagnosed_again == ["compute-bound"]


@tried_again
def test_other_processes_take_the_cpus(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "usable_cpus", lambda: [0, 1])
    ran = profiled([{"forward": 0.02} for _ in range(160)], tmp_path)
    for worker in ran.report["workers"]:
        worker["cpu_seconds"] = 0.1 * worker["seconds"]
        worker["cpu_wait_seconds"] = 0.9 * worker["seconds"]
    assert ran.diagnosed_again == ["other processes take the CPUs"]
    (finding,) = diagnosis.diagnose(ran.report)
    assert "--num-workers 1" in finding.setting


def test_what_a_worker_waits_for_a_cpu_is_counted(tmp_path, monkeypatch):
    monkeypatch.undo()
    before = profiler._seconds_without_cpu()
    assert before >= 0
    ran = profiled(steady(40), tmp_path, num_workers=1)
    (worker,) = ran.report["workers"]
    assert 0 <= worker["cpu_wait_seconds"] < 60
    monkeypatch.setattr(profiler.glob, "glob", lambda pattern: [str(tmp_path / "gone")])
    assert profiler._seconds_without_cpu() == 0.0


@tried_again
def test_padding_that_workers_skip_is_no_finding(tmp_path):
    inputs = [{"forward": 0.005, "length": 40 if n % 4 == 0 else 2} for n in range(80)]
    predictor = TimedPredictor()
    predictor._model.skips_padding = True  # as accelerate/padding.py marks its transformers
    ran = profiled(inputs, tmp_path, predictor=predictor, num_workers=1)
    assert ran.report["padding"]["skipped"] and ran.rules == []


def test_every_rule_names_what_to_change_and_is_tested():
    with open(__file__) as file:
        tests = file.read()
    for rule in diagnosis.RULES:
        assert rule.text and rule.setting
    names = ["swapping", "start-up dominates", "oversubscribed", "starved by the reader"]
    names += ["result transfer dominates", "padding", "stragglers", "one slow worker"]
    names += ["slow kernels", "compute-bound", "other processes take the CPUs"]
    assert set(names) == {rule.name for rule in diagnosis.RULES}
    for name in names:
        assert f'"{name}"' in tests.split("def test_every_rule")[0], name
