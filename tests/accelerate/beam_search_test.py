"""The states of beams, moved by us and by AllenNLP."""

import copy

import pytest
import torch
from allennlp.data import Vocabulary
from allennlp.nn.beam_search import BeamSearch

from allennlp_parallel_predict.accelerate.beam_search import _update_state_by_rows, use_row_copies

BATCH, BEAM = 3, 4


@pytest.fixture
def search():
    return BeamSearch(end_index=0, max_steps=5, beam_size=BEAM, vocab=Vocabulary())


@pytest.fixture
def backpointer():
    return torch.randint(BEAM, (BATCH, BEAM))


def both_ways(search, state, backpointer):
    theirs, ours = copy.deepcopy(state), copy.deepcopy(state)
    search._update_state(theirs, backpointer)
    _update_state_by_rows(search, ours, backpointer)
    return theirs, ours


def assert_equal(theirs, ours):
    assert list(ours) == list(theirs)
    for key, tensor in theirs.items():
        if tensor is None:
            assert ours[key] is None
        else:
            assert torch.equal(ours[key], tensor) and ours[key].dtype == tensor.dtype
            assert ours[key].is_contiguous() == tensor.is_contiguous()


def test_states_of_all_shapes(search, backpointer):
    rows = BATCH * BEAM
    state = {
        "decoder_hidden": torch.rand(rows, 5),
        "nothing": None,
        "encoder_outputs": torch.rand(rows, 7, 5),
        "source_mask": torch.rand(rows, 7) > 0.5,
        "past": torch.rand(rows, 2, 3, 7, 5, dtype=torch.double),
        "tokens": torch.randint(9, (rows,)),
        "turned": torch.rand(5, rows).t(),
        "empty": torch.rand(rows, 0),
    }
    theirs, ours = both_ways(search, state, backpointer)
    assert_equal(theirs, ours)
    assert not torch.equal(ours["decoder_hidden"], state["decoder_hidden"])


def test_a_decoder_with_several_layers(search, backpointer):
    state = {
        "decoder_hidden": torch.rand(2, BATCH * BEAM, 5),
        "decoder_context": torch.rand(2, BATCH * BEAM, 5),
        "encoder_outputs": torch.rand(BATCH * BEAM, 7, 5),
    }
    assert_equal(*both_ways(search, state, backpointer))


@pytest.mark.parametrize("shape", [(), (BATCH, 5), (BATCH * BEAM * 2, 5)])
def test_a_state_that_does_not_fit_is_treated_as_by_allennlp(search, backpointer, shape):
    state = {"odd": torch.rand(shape), "even": torch.rand(BATCH * BEAM)}
    try:
        theirs, ours = both_ways(search, state, backpointer)
    except Exception as error:
        with pytest.raises(type(error)):
            search._update_state(copy.deepcopy(state), backpointer)
        with pytest.raises(type(error)):
            _update_state_by_rows(search, copy.deepcopy(state), backpointer)
    else:
        assert_equal(theirs, ours)


def test_only_allennlps_own_way_is_replaced(monkeypatch):
    monkeypatch.setattr(BeamSearch, "_update_state", BeamSearch._update_state)
    use_row_copies()
    assert BeamSearch._update_state is _update_state_by_rows

    def theirs(self, state, backpointer):
        pass

    monkeypatch.setattr(BeamSearch, "_update_state", theirs)
    use_row_copies()
    assert BeamSearch._update_state is theirs
