"""One worker in this process, which shares its interrupts."""

import pytest

from allennlp_parallel_predict.executors import InProcessExecutor
from tests.support.faults import expected, numbered, run


def test_what_fails_is_left_out(tmp_path):
    ran = run(numbered(12, {5: "raise"}), tmp_path, executor=InProcessExecutor())
    assert (ran.output, ran.failed) == (expected(n for n in range(12) if n != 5), [5])


@pytest.mark.parametrize("fault, raised", [("interrupt", KeyboardInterrupt), ("leave", SystemExit)])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("on_error", ["raise", "skip", "placeholder"])
def test_an_interrupt_is_no_failure_of_an_input(tmp_path, fault, raised, batch_size, on_error):
    inputs = numbered(12, {5: fault})
    with pytest.raises(raised):
        run(inputs, tmp_path, batch_size, on_error, executor=InProcessExecutor())
    first = 5 - 5 % batch_size
    assert (tmp_path / "output").read_text() == expected(range(first))
    assert (tmp_path / "errors").read_text() == ""
