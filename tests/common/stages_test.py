"""The names of stages."""

from allennlp_parallel_predict.common import stages


def test_each_name_is_in_a_list_and_no_two_are_the_same():
    names = {name: value for name, value in vars(stages).items() if isinstance(value, str)}
    names = {name: value for name, value in names.items() if name.isupper()}
    assert len(set(names.values())) == len(names)
    assert set(names.values()) == {*stages.WORKER_STAGES, *stages.PARENT_STAGES}
    for order in (stages.WORKER_STAGES, stages.PARENT_STAGES):
        assert len(set(order)) == len(order) and order[-1] == stages.OTHER
