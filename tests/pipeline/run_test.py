"""Whether a run begins, goes on or starts over."""

import pytest

from allennlp_parallel_predict.common.errors import Interrupted, SettingsError
from tests.support.small_runs import EchoExecutor, InterruptedExecutor, Place


def interrupted(place, at):
    with pytest.raises(Interrupted):
        place.run(executor=InterruptedExecutor(at))


def test_an_interrupted_run_is_not_overwritten_by_accident(tmp_path):
    place = Place(tmp_path, range(30))
    interrupted(place, at=4)
    before = place.output.read_bytes()
    with pytest.raises(SettingsError, match="give --resume to go on with it, or --overwrite"):
        place.run()
    assert place.output.read_bytes() == before
    place.run(overwrite=True)
    place.check()


def test_what_is_complete_is_not_predicted_again(tmp_path):
    place, asked = Place(tmp_path, range(10)), []
    place.run()
    assert place.run(executor=EchoExecutor(asked.append), resume=True) == 0
    assert asked == []
    place.check()
