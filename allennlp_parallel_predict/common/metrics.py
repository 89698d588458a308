"""Counts and times for Prometheus, of a service and of a run of the command."""

from bisect import bisect_left
from typing import Any, Callable, Iterator, List, NamedTuple, Optional, Sequence

from allennlp_parallel_predict.common.extras import import_extra

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""The upper bounds of a histogram's buckets, as the Prometheus libraries have them."""
SIZES = tuple(2.0**n for n in range(11))
"""The same for the inputs of a batch."""


class Histogram:
    """
    How many values there were of each size.

    # Parameters

    bounds : `Sequence[float]`, optional (default = `SECONDS`)
        The upper bounds of the buckets, in rising order; one without a bound comes after them.
    """

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float, count: int = 1) -> None:
        """Adds a value, or several that are equal."""
        self.counts[bisect_left(self.bounds, value)] += count
        self.sum += value * count

    def cumulative(self) -> List[Any]:
        """Pairs of an upper bound, as text, and the number of values up to it."""
        names = [*map(str, self.bounds), "+Inf"]
        return [(name, sum(self.counts[: n + 1])) for n, name in enumerate(names)]


class Metrics(NamedTuple):
    """The values at a moment."""

    lines: int
    """Inputs that are finished, failures included."""
    failures: int
    restarts: int
    """Workers that were replaced because they died or were too slow."""
    workers: int
    queue_inputs: int
    """Inputs that no worker has yet."""
    batch_seconds: Histogram
    """From the submission of a batch to its result."""
    batch_inputs: Histogram
    request_seconds: Optional[Histogram] = None
    """From a call to its result; only a service has it."""


class MetricsRegistry:
    """
    The metrics in the form of `prometheus_client`.

    # Parameters

    read : `Callable[[], Metrics]`
        Reads the values; called in any thread, whenever they are asked for.

    # Raises

    `SettingsError`
        If `prometheus_client` is not installed.

    # Examples

    ```python
    registry = MetricsRegistry(lambda: predictor.statistics().metrics())
    print(registry.text().decode())
    ```
    """

    def __init__(self, read: Callable[[], Metrics]) -> None:
        self._client = import_extra("prometheus_client", "metrics", "a MetricsRegistry")
        self._read = read
        self._registry = self._client.CollectorRegistry()
        self._registry.register(self)
        self.content_type: str = self._client.CONTENT_TYPE_LATEST

    def collect(self) -> Iterator[Any]:
        """The metric families, as `prometheus_client` asks a collector for them."""
        now, core = self._read(), self._client.metrics_core
        for name, text, value in (
            ("lines", "Inputs that are finished, failures included.", now.lines),
            ("failures", "Inputs that failed.", now.failures),
            ("restarts", "Workers that were replaced.", now.restarts),
        ):
            yield core.CounterMetricFamily(f"parallel_predict_{name}", text, value)
        for name, text, value in (
            ("workers", "Workers that are alive.", now.workers),
            ("queue_inputs", "Inputs that no worker has yet.", now.queue_inputs),
        ):
            yield core.GaugeMetricFamily(f"parallel_predict_{name}", text, value)
        for name, text, histogram in (
            (
                "batch_seconds",
                "Seconds from a batch's submission to its result.",
                now.batch_seconds,
            ),
            ("batch_inputs", "Inputs of a batch.", now.batch_inputs),
            ("request_seconds", "Seconds from a call to its result.", now.request_seconds),
        ):
            if histogram is not None:
                yield core.HistogramMetricFamily(
                    f"parallel_predict_{name}", text, histogram.cumulative(), histogram.sum
                )

    def text(self) -> bytes:
        """The values now, in Prometheus' text format."""
        text: bytes = self._client.generate_latest(self._registry)
        return text
