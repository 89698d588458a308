"""Stages that add up in each process."""

import pytest

from allennlp_parallel_predict.common import stages
from allennlp_parallel_predict.executors import InProcessExecutor
from tests.fixtures.timed_predictors import OverridingPredictor, TimedPredictor
from tests.support.profiles import profiled

pytestmark = pytest.mark.timeout(90)


STEPS = {
    "load": stages.LOAD_LINE,
    "instance": stages.TO_INSTANCE,
    "index": stages.INDEXING,
    "forward": stages.FORWARD,
    "readable": stages.READABLE,
    "dump": stages.DUMP_LINE,
}


class TestStages:
    @pytest.mark.parametrize("step", STEPS)
    def test_each_step_has_its_name(self, tmp_path, step):
        ran = profiled([{step: 0.02}] * 4, tmp_path, num_workers=1)
        found = ran.report["stages"]
        steps = 1 if step == "readable" else 4
        assert found[STEPS[step]] >= 0.02 * steps
        others = sum(found[name] for name in STEPS.values() if name != STEPS[step])
        assert others < found[STEPS[step]]

    def test_a_predictor_that_overrides_predict_json(self, tmp_path):
        for batch_size in (1, 4):
            inputs = [{"own": 0.01, "instance": 0.01, "forward": 0.01}] * 4
            predictor = OverridingPredictor()
            ran = profiled(inputs, tmp_path, batch_size, predictor, num_workers=1)
            for stage in (stages.PREDICTOR, stages.TO_INSTANCE, stages.FORWARD):
                assert ran.report["stages"][stage] >= 0.04, (batch_size, stage)

    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_they_add_up_in_each_process(self, tmp_path, workers):
        executor = None if workers else InProcessExecutor()
        ran = profiled([{"forward": 0.01}] * 20, tmp_path, executor=executor, num_workers=workers)
        report = ran.report
        for process in [report["parent"], *report["workers"]]:
            assert sum(process["stages"].values()) == pytest.approx(process["seconds"], abs=1e-6)
        assert report["seconds"]["wall"] == report["parent"]["seconds"]
        assert len(report["workers"]) == max(1, workers)
        assert sum(worker["lines"] for worker in report["workers"]) == report["lines"] == 20

    def test_a_worker_that_died_and_its_successor(self, tmp_path, monkeypatch):
        import os

        dump_line, flag = TimedPredictor.dump_line, tmp_path / "died"

        def die_once(self, outputs):
            if outputs["inputs"].get("dies") and not flag.exists():
                flag.write_text("")
                os._exit(1)
            return dump_line(self, outputs)

        monkeypatch.setattr(TimedPredictor, "dump_line", die_once)
        inputs = [{"forward": 0.005, "dies": n == 30} for n in range(60)]
        ran = profiled(inputs, tmp_path, num_workers=1)
        assert ran.report["restarts"] == 1 and len(ran.report["workers"]) == 2
        assert ran.report["lines"] == 60
