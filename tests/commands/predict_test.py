"""What flags become before anything runs; that its bytes are `predict`'s is tested in contract/."""

import argparse
import json

import pytest

from allennlp_parallel_predict.commands.predict import ParallelPredict, _config, _settings
from allennlp_parallel_predict.common.errors import SettingsError


def parse(*flags):
    parser = argparse.ArgumentParser()
    ParallelPredict().add_subparser(parser.add_subparsers())
    return parser.parse_args(["parallel-predict", "model.tar.gz", "in.jsonl", *flags])


def test_a_flag_of_predict_wins_over_the_file_only_if_it_is_given(tmp_path):
    path = tmp_path / "pool.json"
    path.write_text(json.dumps({"batching": {"type": "in_order", "batch_size": 7}}))
    for flags, size in (
        ([], 1),
        (["--batch-size", "1"], 1),
        (["--parallel-config", str(path)], 7),
        (["--parallel-config", str(path), "--batch-size", "1"], 1),
    ):
        assert _settings(parse(*flags)).batching.batch_size == size
    assert _settings(parse("--cuda-device", "-1")).executor.cuda_devices == []
    assert _settings(parse("--cuda-device", "0")).executor.cuda_devices == [0]


def test_our_flags_are_settings_or_the_runs_configuration():
    settings = _settings(parse("--num-workers", "3", "--on-error", "skip", "--max-errors", "5"))
    assert settings.executor.num_workers == 3
    assert (settings.on_error, settings.max_errors) == ("skip", 5)
    config = _config(parse("--limit", "5", "--output-file", "out"))
    assert (config.archive_file, config.limit, config.output_file) == ("model.tar.gz", 5, "out")
    assert _config(parse("--silent")).writes_nothing and not _config(parse()).writes_nothing
    with pytest.raises(SettingsError, match="executor.num_workers"):
        _settings(parse("--num-workers", "0"))
