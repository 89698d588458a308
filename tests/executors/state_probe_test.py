"""What leaves an executor while it is not known whether the model keeps state."""

from allennlp_parallel_predict.common.messages import BatchResult
from allennlp_parallel_predict.executors.state_probe import ModelKind, StateProbe


def test_results_are_held_until_the_first_batch_is_finished():
    probe = StateProbe(is_needed=True)
    second, first, third = (BatchResult(number) for number in (1, 0, 2))
    assert probe.add(second, 10, first=0) == [] and probe.is_open
    assert probe.add(first, 20, first=0) == [(second, 10), (first, 20)]
    assert probe.kind is ModelKind.STATELESS
    assert probe.add(third, 30, first=2) == [(third, 30)]


def test_nothing_leaves_if_the_model_keeps_state():
    probe = StateProbe(is_needed=True)
    probe.add(BatchResult(1), 10, first=0)
    assert probe.add(BatchResult(2, state_change="it counts"), 10, first=0) == []
    assert probe.kind is ModelKind.STATEFUL
    again = BatchResult(0, state_change="it counts")
    assert probe.add(again, 10, first=0) == [(again, 10)]


def test_one_worker_needs_no_probe():
    probe = StateProbe(is_needed=False)
    result = BatchResult(5, state_change="it counts")
    assert probe.add(result, 10, first=0) == [(result, 10)]
