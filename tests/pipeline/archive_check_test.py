"""An archive or a predictor that does not exist is found without loading anything."""

import json
import tarfile

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_parallel_predict.pipeline.archive_check import check_archive


def archive_of(folder, model):
    (folder / "config.json").write_text(json.dumps({"model": {"type": model}}))
    with tarfile.open(folder / "model.tar.gz", "w:gz") as tar:
        tar.add(folder / "config.json", "config.json")
    return str(folder / "model.tar.gz")


def test_no_archive():
    with pytest.raises(FileNotFoundError) as caught:
        check_archive("none.tar.gz", None, "")
    assert caught.value.explanation.startswith("cannot load the archive none.tar.gz: ")


def test_a_predictor_that_does_not_exist(tmp_path):
    archive = archive_of(tmp_path, "simple_tagger")
    check_archive(archive, None, "")
    with pytest.raises(ConfigurationError) as caught:
        check_archive(archive, "no_such_predictor", "")
    assert "no_such_predictor" in caught.value.explanation


def test_a_class_named_in_full_may_register_it(tmp_path):
    check_archive(archive_of(tmp_path, "library.Tagger"), "its_predictor", "")
    archive = archive_of(tmp_path, "simple_tagger")
    check_archive(archive, "its_predictor", '{"model": {"type": "library.Tagger"}}')
