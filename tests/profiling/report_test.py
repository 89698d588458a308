"""What a report says of a run."""

import pytest

from allennlp_parallel_predict.profiling.render import render
from tests.support.profiles import profiled

pytestmark = pytest.mark.timeout(90)


def test_workers_that_are_replaced_are_not_more_workers(tmp_path):
    inputs = [{"forward": 0.005}] * 200
    ran = profiled(inputs, tmp_path, max_batches_per_worker=5)
    assert len(ran.report["workers"]) >= 8 and ran.report["num_workers"] == 2
    assert 0.3 < ran.report["utilisation"] <= 1
    assert ran.report["idle_at_the_end"] < ran.report["seconds"]["predicting"]


def test_workers_that_get_nothing_are_workers(tmp_path):
    ran = profiled([{"forward": 0.1}] * 8, tmp_path, num_workers=4)
    assert len(ran.report["workers"]) == 2
    assert ran.report["utilisation"] < 0.6


def test_the_slowest_batch_has_its_lines_and_lengths(ran):
    slowest = ran.report["slowest_batches"][0]
    assert slowest["lines"] == "input lines 41-44" and slowest["inputs"] == 4
    assert slowest["tokens"] == {"shortest": 1, "mean": 2.5, "longest": 4}
    assert ran.report["batch_seconds"]["max"] == slowest["seconds"] > 0.1
    assert len(ran.report["slowest_batches"]) == 10


def test_memory_cpu_and_bytes(ran):
    for process in [ran.report["parent"], *ran.report["workers"]]:
        memory = process["memory"]
        assert 0 < memory["uss"] <= memory["pss"] <= memory["rss"]
        assert process["cpu_seconds"] > 0
    assert 0 < ran.report["memory"]["shared"] < 1
    assert ran.report["memory"]["processes"] == 3
    assert ran.report["bytes"]["to_workers"] > 80 * len('{"forward": 0.002, "length": 1}')


def test_a_run_without_input(tmp_path):
    report = profiled([], tmp_path).report
    assert report["lines"] == 0 and report["workers"] == []
    assert "0 lines" in render(report)
