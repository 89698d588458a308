"""How the workers of a pool are started: where, with what, and how they share the model."""

import os
import socket
import sys
import time
from typing import Dict, List, Optional, Sequence

import torch
from allennlp.predictors import Predictor

from allennlp_parallel_predict.accelerate.predictor import prepare_for_forks
from allennlp_parallel_predict.common import machine
from allennlp_parallel_predict.common.errors import SettingsError, user_error_context
from allennlp_parallel_predict.common.messages import Precision, WorkerOptions
from allennlp_parallel_predict.executors.pool.worker_process import (
    WorkerProcess,
    fork_worker,
    spawn_worker,
)
from allennlp_parallel_predict.models import sharing
from allennlp_parallel_predict.models.state import RandomStates
from allennlp_parallel_predict.worker.process import WorkerSetup


class Launcher:
    """
    Starts the workers of a [`ProcessPoolExecutor`](./process_pool.md), whose parameters these are.

    # Raises

    `SettingsError`
        If `start_method` cannot be used, here or with these devices.
    """

    def __init__(
        self,
        threads_per_worker: Optional[int],
        start_method: Optional[str],
        share_model: bool,
        cuda_devices: List[int],
        pin_cpus: bool,
    ) -> None:
        self.cpus = machine.usable_cpus()
        self._threads_per_worker = threads_per_worker
        self._start_method = _check_start_method(start_method, cuda_devices)
        self._share_model = share_model
        self._cuda_devices = cuda_devices
        self._pin_cpus = pin_cpus

    def prepare(self, predictor: Predictor, options: WorkerOptions) -> None:
        """Takes what the workers are to run."""
        self._predictor = predictor
        self._options = options
        self._random_states = RandomStates.read()
        self._gpu_copies: Dict[int, torch.Tensor] = {}
        if self._start_method == "spawn":
            self._packed = _pack(predictor)
        elif options.precision == Precision.FP32:
            prepare_for_forks(predictor, options.exact)

    def launch(
        self, num_workers: int, number: int, inherited: Sequence[socket.socket]
    ) -> WorkerProcess:
        """Starts the worker of a number; `inherited` is what a forked one must not keep."""
        threads = self.threads(num_workers)
        has_own_cpu = threads == 1 and num_workers == len(self.cpus) == os.cpu_count()
        devices = self._cuda_devices or [-1]
        setup = WorkerSetup(
            self._options,
            threads,
            [self.cpus[number]] if self._pin_cpus and has_own_cpu else None,
            devices[number % len(devices)],
            self._share_model,
            time.monotonic(),
            self._random_states,
        )
        with user_error_context("cannot start a worker", OSError):
            if self._start_method == "fork":
                return fork_worker(self._predictor, setup, inherited)
            shares_gpu = self._share_model and num_workers > len(self._cuda_devices) > 0
            on_gpu = self._copy_on(setup.cuda_device) if shares_gpu else None
            return spawn_worker(self._packed, setup, on_gpu)

    def _copy_on(self, device: int) -> torch.Tensor:
        """The copy of the model that the workers of a GPU share."""
        if device not in self._gpu_copies:
            self._gpu_copies[device] = sharing.copy_to_gpu(self._packed, device)
        return self._gpu_copies[device]

    def threads(self, num_workers: int) -> int:
        """The threads of torch in each of so many workers."""
        if self._threads_per_worker is not None:
            return self._threads_per_worker
        from_environment = os.environ.get("OMP_NUM_THREADS", "")
        if from_environment.isdigit() and int(from_environment) > 0:
            return int(from_environment)
        return max(1, len(self.cpus) // num_workers)

    def describe(self, num_workers: int) -> str:
        shared = "model shared" if self._share_model else "a model each"
        threads = self.threads(num_workers)
        return f"{self._start_method}, {threads} thread{'s' * (threads > 1)} each, {shared}"


def _check_start_method(start_method: Optional[str], cuda_devices: List[int]) -> str:
    if start_method is None:
        return "fork" if sys.platform == "linux" and not cuda_devices else "spawn"
    if start_method not in ("fork", "spawn"):
        raise SettingsError(
            f"executor.start_method must be 'fork' or 'spawn', but it is {start_method!r}"
        )
    if start_method == "fork" and cuda_devices:
        raise SettingsError(
            "executor.start_method must be 'spawn' with GPUs: CUDA cannot be forked"
        )
    if start_method == "fork" and not hasattr(os, "fork"):
        raise SettingsError("executor.start_method must be 'spawn' on this system")
    return start_method


def _pack(predictor: Predictor) -> sharing.PackedPredictor:
    try:
        return sharing.pack(predictor)
    except Exception as error:
        raise SettingsError(
            f"this predictor cannot be sent to spawned workers ({error}): set "
            "executor.start_method to 'fork', or define its classes in a module"
        ) from error
