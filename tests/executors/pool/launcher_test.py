"""What each worker is told; the workers themselves run in process_pool_test."""

import os
from types import SimpleNamespace

import pytest
import torch

from allennlp_parallel_predict.common import machine
from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.messages import WorkerOptions
from allennlp_parallel_predict.executors.pool import launcher as launcher_module
from allennlp_parallel_predict.executors.pool.launcher import Launcher
from allennlp_parallel_predict.models import sharing


def make(monkeypatch, cpus=4, threads=None, start_method=None, devices=(), share=True, pin=True):
    monkeypatch.setattr(machine, "usable_cpus", lambda: list(range(cpus)))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    launcher = Launcher(threads, start_method, share, list(devices), pin)
    # Nothing is started here: what a worker is told is taken down instead.
    monkeypatch.setattr(
        launcher_module, "fork_worker", lambda predictor, setup, inherited: (setup, None)
    )
    monkeypatch.setattr(
        launcher_module, "spawn_worker", lambda packed, setup, on_gpu: (setup, on_gpu)
    )
    monkeypatch.setattr(launcher_module, "_pack", lambda predictor: "packed")
    monkeypatch.setattr(sharing, "copy_to_gpu", lambda packed, device: f"{packed} on {device}")
    launcher.prepare(SimpleNamespace(_model=torch.nn.Module()), WorkerOptions())
    return launcher


def launched(launcher, num_workers):
    return [launcher.launch(num_workers, number, []) for number in range(num_workers)]


def test_workers_are_dealt_out_over_gpus_and_share_the_model_of_theirs(monkeypatch):
    workers = launched(make(monkeypatch, devices=[3, 5]), 5)
    assert [setup.cuda_device for setup, _ in workers] == [3, 5, 3, 5, 3]
    assert [on_gpu for _, on_gpu in workers] == [f"packed on {d}" for d in (3, 5, 3, 5, 3)]


def test_a_worker_alone_on_its_gpu_or_with_a_model_of_its_own_shares_nothing(monkeypatch):
    assert [on_gpu for _, on_gpu in launched(make(monkeypatch, devices=[0, 1]), 2)] == [None] * 2
    unshared = make(monkeypatch, devices=[0], share=False)
    assert [on_gpu for _, on_gpu in launched(unshared, 2)] == [None] * 2


def test_without_gpus_workers_are_forked_on_the_cpu(monkeypatch):
    workers = launched(make(monkeypatch, start_method="fork"), 2)
    assert [setup.cuda_device for setup, _ in workers] == [-1, -1]


@pytest.mark.parametrize("num_workers, threads", [(1, 4), (2, 2), (3, 1), (4, 1), (9, 1)])
def test_workers_do_not_oversubscribe(monkeypatch, num_workers, threads):
    assert make(monkeypatch).threads(num_workers) == threads


def test_the_environment_and_then_the_setting_decide_on_threads(monkeypatch):
    launcher, set_to_3 = make(monkeypatch), make(monkeypatch, threads=3)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert launcher.threads(1) == 2
    assert set_to_3.threads(1) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert launcher.threads(1) == 4


def test_workers_have_a_cpu_each_only_if_that_uses_the_whole_machine(monkeypatch):
    def cpus(num_workers, **more):
        launcher = make(monkeypatch, start_method="fork", **more)
        return [setup.cpus for setup, _ in launched(launcher, num_workers)]

    assert cpus(4) == [[0], [1], [2], [3]]
    assert cpus(4, pin=False) == [None] * 4
    assert cpus(4, threads=2) == [None] * 4
    assert cpus(3) == [None] * 3
    assert cpus(2, cpus=2) == [None] * 2


def test_cuda_cannot_be_forked(monkeypatch):
    with pytest.raises(SettingsError, match="spawn"):
        make(monkeypatch, start_method="fork", devices=[0])
