"""Joining a cluster, and the code that travels there."""

import os

import psutil
import pytest

from allennlp_parallel_predict.executors.ray import actor, cluster


class Installation:
    """A stand-in for the module: what runs on this machine must not decide what is tested."""

    def __init__(self, address):
        self.address, self.joined = address, []

    def init(self, address, **options):
        if address == "auto" and self.address is None:
            raise ConnectionError("Could not find any running Ray instance")
        self.joined.append((address, options["runtime_env"]))


class TestWithoutAnAddress:
    def test_the_cluster_of_this_machine_is_joined(self):
        ray = Installation("127.0.0.1:6379")
        cluster.Connection(None, {})._join(ray, "auto")
        assert ray.joined == [("auto", {})]

    def test_or_a_local_one_is_started_with_a_message(self, caplog):
        ray = Installation(None)
        cluster.Connection(None, {})._join(ray, "auto")
        assert ray.joined == [("local", {})] and "a local one is started" in caplog.text

    def test_but_not_in_place_of_one_that_was_asked_for(self):
        with pytest.raises(ConnectionError):
            cluster.Connection("auto", {})._join(Installation(None), "auto")

    def test_an_empty_list_of_modules_is_not_sent(self, monkeypatch):
        monkeypatch.setattr(cluster, "local_code", lambda folder: [])
        ray = Installation(None)
        cluster.Connection("local", None)._join(ray, "local")
        assert ray.joined == [("local", {})]


def test_only_code_that_is_not_installed_travels(tmp_path, monkeypatch):
    (tmp_path / "single_file.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    __import__("single_file")
    code = cluster.local_code(tmp_path)
    names = {os.path.basename(path) for path in code}
    assert "allennlp_parallel_predict" in names or not __file__.startswith(os.getcwd())
    assert names.isdisjoint({"allennlp", "torch", "numpy", "json", "psutil", psutil.__name__})
    single_files = os.listdir(tmp_path / actor.SINGLE_FILES)
    assert "single_file.py" in single_files
