"""The loop, with an executor that gives the later batch first and fails at every fifth input."""

import pytest

from allennlp_parallel_predict.common.errors import Interrupted
from tests.support.small_runs import InterruptedExecutor, Place


@pytest.mark.parametrize("batching", ["in_order", "bucket"])
@pytest.mark.parametrize("on_error", ["skip", "placeholder"])
def test_the_order_of_the_input(tmp_path, batching, on_error):
    place = Place(tmp_path, range(40), batching, on_error)
    assert place.run() == 8
    place.check()


def test_the_first_failure_ends_the_run_behind_what_is_before_it(tmp_path):
    place = Place(tmp_path, range(40), on_error="raise")
    with pytest.raises(ValueError, match="no"):
        place.run()
    assert place.output.read_bytes() == place.expected(2)


def test_an_interrupt_loses_nothing_that_was_written(tmp_path):
    place = Place(tmp_path, range(40))
    with pytest.raises(Interrupted):
        place.run(executor=InterruptedExecutor(at=5))
    written = place.output.read_bytes()
    assert 0 < len(written) < len(place.expected()) and place.expected().startswith(written)
    place.run(resume=True)
    place.check()
