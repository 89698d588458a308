"""Deaths that follow each other, and models that keep state, in a pool of real processes."""

import json

import pytest

from allennlp_parallel_predict.common.errors import ModelStateError, WorkerDied
from tests.support.faults import numbered, predictor_of, run, without

pytestmark = pytest.mark.timeout(90)


class TestDeathAfterDeath:
    @pytest.mark.parametrize("batch_size", [1, 4])
    @pytest.mark.parametrize("on_error", ["raise", "skip"])
    def test_no_batch_ever(self, tmp_path, batch_size, on_error):
        inputs = numbered(1000, {n: "kill" for n in range(1000)})
        with pytest.raises(WorkerDied, match="SIGKILL"):
            run(inputs, tmp_path, batch_size=batch_size, on_error=on_error)

    def test_killing_inputs_in_a_row(self, tmp_path):
        ran = run(numbered(20, {n: "kill" for n in range(5, 12)}), tmp_path, 1, num_workers=1)
        assert (ran.output, ran.failed) == (without(20, *range(5, 12)), list(range(5, 12)))

    def test_inputs_that_are_lost_before_the_end_are_written(self, tmp_path):
        """So that each resumed run gets further."""
        inputs = numbered(20, {n: "kill" for n in range(20)})
        with pytest.raises(WorkerDied, match="second input, and none could be predicted"):
            run(inputs, tmp_path, 1, "placeholder", num_workers=1, max_deaths=2)
        assert len((tmp_path / "output").read_text().splitlines()) == 2

    def test_no_worker_can_load(self, tmp_path):
        predictor = predictor_of(loading_fault="kill in worker")
        with pytest.raises(WorkerDied, match="before it had its model.*three|third"):
            run(numbered(10), tmp_path, predictor=predictor)

    def test_deaths_with_work_in_between_are_no_reason_to_end(self, tmp_path):
        ran = run(numbered(60, {n: "exit" for n in range(0, 60, 3)}), tmp_path, num_workers=1)
        assert ran.failed == list(range(0, 60, 3))


class TestAModelThatKeepsState:
    def counted(self, count):
        return [n + 1 for n in range(count)]

    def seen(self, ran):
        return [json.loads(o)["seen"] for o in ran.output.splitlines() if o.startswith("{")]

    @pytest.mark.parametrize("more", [{"num_workers": 1}, {"num_workers": 3}])
    def test_it_runs_in_one_worker(self, tmp_path, more):
        more["max_batches_per_worker"] = 2  # for it would forget
        ran = run(numbered(30), tmp_path, predictor=predictor_of(keeps_state=True), **more)
        assert self.seen(ran) == self.counted(30)
        assert ran.executor.state_change is not None

    @pytest.mark.parametrize("workers", [1, 2])
    def test_its_worker_dies(self, tmp_path, workers):
        once = {"do": "kill", "once": str(tmp_path / "once")}
        with pytest.raises(ModelStateError, match="SIGKILL.*state|state.*SIGKILL"):
            run(
                numbered(40, {30: once}),
                tmp_path,
                predictor=predictor_of(keeps_state=True),
                num_workers=workers,
            )
        assert (tmp_path / "output").read_text().count("{") == 28

    @pytest.mark.parametrize("workers", [1, 2])
    def test_it_shows_when_the_first_batch_is_taken_apart(self, tmp_path, workers):
        """One input finds the state, and the other ends a worker that has finished nothing."""
        with pytest.raises(ModelStateError, match="that state is lost"):
            run(
                numbered(2, {1: "kill"}),
                tmp_path,
                predictor=predictor_of(keeps_state=True),
                batch_size=2,
                num_workers=workers,
                max_retries=0,
            )

    def test_its_worker_dies_before_the_first_batch_is_finished(self, tmp_path):
        once = {"do": "kill", "once": str(tmp_path / "once")}
        predictor = predictor_of(keeps_state=True)
        ran = run(numbered(40, {1: once}), tmp_path, predictor=predictor, num_workers=1)
        assert self.seen(ran) == self.counted(40)
