"""How a predictor's arguments become settings."""

import pytest

from allennlp_parallel_predict.api.base import BasePredictor, _built
from allennlp_parallel_predict.common.errors import SettingsError


def test_arguments_win_over_settings(tmp_path):
    path = tmp_path / "pool.jsonnet"
    path.write_text("{executor: {num_workers: 2, start_method: 'spawn'}, on_error: 'skip'}")
    for settings in (path, str(path)):
        built = _built(settings, None)
        assert (built.executor.num_workers, built.on_error) == (2, "skip")
        assert _built(settings, 3).executor.num_workers == 3
    built = _built({"executor.num_workers": 1, "batching.batch_size": 4}, None, cuda_device=1)
    assert (built.executor.num_workers, built.batching.batch_size) == (1, 4)
    assert built.executor.cuda_devices == [1]


def test_the_queue_of_a_class_has_its_default_size():
    class Merging(BasePredictor):
        _default_max_batch_size = 32

    assert BasePredictor._queue(None, 0.1, None).max_batch_size == 1
    queue = Merging._queue(None, 0.1, 7)
    assert (queue.max_batch_size, queue.max_queue_delay, queue.max_waiting) == (32, 0.1, 7)
    assert Merging._queue(8, 0.1, None).max_batch_size == 8


def test_a_typo_is_told_before_anything_is_loaded():
    with pytest.raises(TypeError, match="did you mean predictor_args?"):
        BasePredictor.from_path("nowhere.tar.gz", predictor_arg={})
    with pytest.raises(SettingsError, match="executor.num_worker"):
        BasePredictor.from_path("nowhere.tar.gz", settings={"executor.num_worker": 1})
