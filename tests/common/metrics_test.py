"""The metrics, as Prometheus reads them."""

import sys

import pytest

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.metrics import SIZES, Histogram, Metrics, MetricsRegistry


def metrics():
    seconds = Histogram()
    seconds.observe(0.02)
    seconds.observe(90.0, 2)
    return Metrics(7, 1, 0, 2, 3, seconds, Histogram(SIZES))


def test_a_histogram_counts_up_to_each_bound():
    buckets = dict(metrics().batch_seconds.cumulative())
    assert (buckets["0.01"], buckets["0.025"], buckets["60.0"], buckets["+Inf"]) == (0, 1, 1, 3)
    assert metrics().batch_seconds.sum == 180.02


def test_prometheus_can_read_them():
    parser = pytest.importorskip("prometheus_client.parser")
    registry = MetricsRegistry(metrics)
    families = {f.name: f for f in parser.text_string_to_metric_families(registry.text().decode())}
    assert families["parallel_predict_lines"].samples[0].value == 7
    assert families["parallel_predict_batch_seconds"].type == "histogram"
    assert "parallel_predict_request_seconds" not in families


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(SettingsError, match=r"allennlp-parallel-predict\[metrics\]"):
        MetricsRegistry(metrics)
