"""How the Python interfaces are opened: the model from an archive, the pool from settings."""

import inspect
import json
import os
import weakref
from functools import partial
from typing import Any, Callable, Dict, Optional, Type, TypeVar, Union

from allennlp.common import Params, plugins
from allennlp.models import Archive
from allennlp.predictors import Predictor

from allennlp_parallel_predict.api.dispatcher import Dispatcher
from allennlp_parallel_predict.api.request_queue import QueueSettings
from allennlp_parallel_predict.api.statistics import Statistics
from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.messages import OnError, Precision, WorkerOptions
from allennlp_parallel_predict.common.suggestions import did_you_mean, suggests_arguments
from allennlp_parallel_predict.models.archives import load_predictor
from allennlp_parallel_predict.models.gpus import check_gpus
from allennlp_parallel_predict.settings import (
    Settings,
    build_settings,
    read_settings,
    set_cuda_device,
    to_on_error,
)

JsonDict = Dict[str, Any]
P = TypeVar("P", bound="BasePredictor")
SettingsLike = Union[None, str, "os.PathLike[str]", Dict[str, Any]]
"""A Jsonnet file, or its content, whose keys may be dotted: `{"executor.num_workers": 2}`."""


class BasePredictor:
    """
    The base class of `ParallelPredictor` and `AsyncPredictor`. Open them with `from_path`,
    `from_archive` or `from_params`.

    # Parameters

    num_workers : `int`, optional (default = `None`)
        The number of worker processes; by default the CPUs that this process may use.
    settings : `Union[str, PathLike, Dict]`, optional (default = `None`)
        The settings of the pool: a Jsonnet file as for `--parallel-config`, or its content. Those
        of files, progress and checkpoints are not used here.
    predictor_args : `Dict[str, Any]`, optional (default = `None`)
        Arguments of the predictor's `__init__`.
    max_batch_size, max_queue_delay, max_waiting :
        As in `QueueSettings`; an `AsyncPredictor` has a `max_batch_size` of 32 by default.

    # Examples

    ```python
    ParallelPredictor.from_path(
        "model.tar.gz", num_workers=4, settings={"executor.start_method": "spawn"}
    )
    ```
    """

    _default_max_batch_size = 1

    def __init__(
        self,
        load: Callable[[], Predictor],
        settings: Settings,
        queue: Optional[QueueSettings] = None,
    ) -> None:
        queue = queue or QueueSettings(self._default_max_batch_size)
        self._batching = settings.batching
        self._on_error = settings.on_error
        self._max_batch_size = queue.max_batch_size
        is_exact = settings.exact and settings.precision == Precision.FP32
        options = WorkerOptions(OnError.SKIP, exact=is_exact, precision=settings.precision)
        self._dispatcher = Dispatcher(settings.executor, load, queue, options)
        # At exit the dispatcher ends by itself.
        weakref.finalize(self, self._dispatcher.kill).atexit = False
        self._opened()

    def _opened(self) -> None:
        """The last step of `__init__`: the dispatcher loads the predictor."""

    def statistics(self) -> Statistics:
        """The counts and times of the predictor so far."""
        return self._dispatcher.statistics()

    def _checked(self, on_error: Optional[str]) -> OnError:
        if on_error is None:
            return self._on_error
        return to_on_error(on_error)

    @classmethod
    @suggests_arguments
    def from_path(
        cls: Type[P],
        archive_path: Union[str, "os.PathLike[str]"],
        predictor_name: Optional[str] = None,
        cuda_device: int = -1,
        dataset_reader_to_load: str = "validation",
        frozen: bool = True,
        import_plugins: bool = True,
        overrides: Union[str, Dict[str, Any]] = "",
        *,
        num_workers: Optional[int] = None,
        settings: SettingsLike = None,
        predictor_args: Optional[Dict[str, Any]] = None,
        max_batch_size: Optional[int] = None,
        max_queue_delay: float = 0.005,
        max_waiting: Optional[int] = None,
    ) -> P:
        """
        Loads an archive and starts workers for it. The first arguments are those of AllenNLP's
        `Predictor.from_path`; the others are described at the class.

        # Raises

        `SettingsError`, `TypeError`
            If a setting or an argument does not exist, or a value cannot be.
        """
        built = _built(settings, num_workers, cuda_device)
        load = partial(
            load_predictor,
            os.fspath(archive_path),
            predictor_name,
            built.executor.loading_device,
            dataset_reader_to_load,
            overrides,
            predictor_args=predictor_args or {},
            frozen=frozen,
        )
        queue = cls._queue(max_batch_size, max_queue_delay, max_waiting)
        return cls(partial(_load, load, built, import_plugins), built, queue)

    @classmethod
    @suggests_arguments
    def from_archive(
        cls: Type[P],
        archive: Archive,
        predictor_name: Optional[str] = None,
        dataset_reader_to_load: str = "validation",
        frozen: bool = True,
        predictor_args: Optional[Dict[str, Any]] = None,
        *,
        num_workers: Optional[int] = None,
        settings: SettingsLike = None,
        max_batch_size: Optional[int] = None,
        max_queue_delay: float = 0.005,
        max_waiting: Optional[int] = None,
    ) -> P:
        """
        Starts workers for an archive that is already loaded, with its model on the CPU; workers
        with GPUs move their copy there. The arguments are as in `from_path`.

        # Raises

        `SettingsError`
            Also if the model is on another device than the settings need.
        """
        built = _built(settings, num_workers)
        device = next((p.device for p in archive.model.parameters()), None)
        actual = -1 if device is None or device.type == "cpu" else device.index or 0
        if actual != built.executor.loading_device:
            raise SettingsError(
                f"the archive's model is on {device}: load it with "
                f"cuda_device={built.executor.loading_device} for these settings"
            )
        load = partial(Predictor.from_archive, archive, predictor_name, dataset_reader_to_load)
        load = partial(load, frozen, predictor_args)
        queue = cls._queue(max_batch_size, max_queue_delay, max_waiting)
        return cls(partial(_load, load, built), built, queue)

    @classmethod
    def _queue(
        cls, max_batch_size: Optional[int], max_queue_delay: float, max_waiting: Optional[int]
    ) -> QueueSettings:
        size = cls._default_max_batch_size if max_batch_size is None else max_batch_size
        return QueueSettings(size, max_queue_delay, max_waiting)

    @classmethod
    def from_params(cls: Type[P], params: Union[Params, Dict[str, Any]]) -> P:
        """
        Opens a predictor from one configuration: the arguments of `from_path`, and beside them the
        settings that a file for `--parallel-config` has.

        # Raises

        `SettingsError`
            If a key does not exist, or `archive_path` is missing.

        # Examples

        ```python
        ParallelPredictor.from_params(Params.from_file("service.jsonnet"))
        ```
        """
        values = params.as_dict(quiet=True) if isinstance(params, Params) else dict(params)
        known = [name for name in inspect.signature(cls.from_path).parameters if name != "settings"]
        own = list(inspect.signature(Settings.__init__).parameters)[1:]
        settings = {key: values.pop(key) for key in list(values) if key.split(".")[0] in own}
        for key in values:
            if key not in known:
                suggestion = did_you_mean(key, [*known, *own])
                raise SettingsError(f"{key} is not a setting{suggestion}")
        if "archive_path" not in values:
            raise SettingsError("archive_path is missing: the archive to load")
        return cls.from_path(**values, settings=settings)


def _load(
    load: Callable[[], Predictor], settings: Settings, import_plugins: bool = False
) -> Predictor:
    check_gpus(settings.executor.cuda_devices)
    if import_plugins:
        plugins.import_plugins()
    return load()


def _built(settings: SettingsLike, num_workers: Optional[int], cuda_device: int = -1) -> Settings:
    if isinstance(settings, dict) or settings is None:
        values = read_settings(overrides=json.dumps(settings or {}))
    else:
        values = read_settings(os.fspath(settings))
    if num_workers is not None:
        values["executor"]["num_workers"] = num_workers
    if cuda_device != -1:
        set_cuda_device(values["executor"], cuda_device)
    return build_settings(values)
