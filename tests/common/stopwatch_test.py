"""Moments that belong to one stage each, and spans."""

import threading
import time

import pytest

from allennlp_parallel_predict.common import stages
from allennlp_parallel_predict.common.stopwatch import Span, Stopwatch, coarsen


class TestStopwatch:
    def test_each_moment_belongs_to_one_stage(self):
        watch = Stopwatch("base")
        before = time.monotonic()
        with watch.stage("outer"):
            time.sleep(0.02)
            watch.timed("inner", time.sleep)(0.03)
        with pytest.raises(ZeroDivisionError), watch.stage("failing"):
            1 / 0
        seconds, _, now = watch.take()
        assert set(seconds) == {"base", "outer", "inner", "failing"}
        assert seconds["inner"] >= 0.03 and seconds["outer"] >= 0.02
        assert sum(seconds.values()) == pytest.approx(now - before, abs=1e-3)
        assert set(watch.take()[0]) == {"base"}

    def test_other_threads_are_not_seen(self):
        watch = Stopwatch("base")
        thread = threading.Thread(target=watch.timed("inner", time.sleep), args=(0.01,))
        thread.start()
        thread.join()
        assert set(watch.take()[0]) == {"base"}

    def test_calls_in_a_row_are_one_slice(self):
        watch = Stopwatch(stages.OTHER, keeps_spans=True)
        call = watch.timed("parsing", lambda: None)
        for _ in range(50):
            call()
        time.sleep(0.001)
        _, spans, _ = watch.take()
        assert len([item for item in spans if item.stage == "parsing"]) < 10

    def test_coarser_spans_cover_the_same_time(self):
        fine = [Span("ab"[n % 2], n, n + (1 if n % 2 else 0.5)) for n in range(1000)]
        coarse = coarsen(fine, 10)
        assert 90 < len(coarse) < 120
        assert (coarse[0].start, coarse[-1].end) == (0, 1000)
        assert {item.stage for item in coarse} == {"b"}
