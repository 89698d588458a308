"""How the Python interfaces are opened: the model from an archive, the pool from settings."""

import inspect
import json
import os
import weakref
from typing import Any, Callable, Dict, List, Optional, Type, TypeVar, Union

from allennlp.common import Params, plugins
from allennlp.models import Archive
from allennlp.predictors import Predictor

from allennlp_parallel_predict.api.dispatcher import Dispatcher
from allennlp_parallel_predict.api.statistics import Statistics
from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.messages import OnError
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

    load : `Callable[[], Predictor]`
        Loads the predictor; called in another thread.
    settings : `Settings`
        The settings of the pool.
    max_batch_size : `int`, optional (default = `1` or, for an `AsyncPredictor`, `32`)
        The number of calls of `predict_json` that are predicted together if they wait at the same
        time. Together they are predicted by `predict_batch_json`, which may differ from
        `predict_json` in the last digits of floats, and so the workers need not be `exact` either.
        With 1, the results are those of a `Predictor` to the last bit.
    max_queue_delay : `float`, optional (default = `0.005`)
        The seconds that such a call waits for others to join it while a worker is idle.
    max_waiting : `int`, optional (default = `None`)
        The number of inputs that may wait for a worker; a call beyond it raises `QueueFull`, unless
        none waits. Streams, and the later batches of a call, wait until there is room.

    # Raises

    `SettingsError`
        If a value is out of range.
    """

    _default_max_batch_size = 1

    def __init__(
        self,
        load: Callable[[], Predictor],
        settings: Settings,
        *,
        max_batch_size: Optional[int] = None,
        max_queue_delay: float = 0.005,
        max_waiting: Optional[int] = None,
    ) -> None:
        for name, value in (("max_batch_size", max_batch_size), ("max_waiting", max_waiting)):
            if value is not None and value < 1:
                raise SettingsError(f"{name} must be at least 1, but it is {value}")
        if max_queue_delay < 0:
            raise SettingsError(f"max_queue_delay must be at least 0, but it is {max_queue_delay}")
        self._batching = settings.batching
        self._on_error = settings.on_error
        self._max_batch_size = max_batch_size or self._default_max_batch_size
        self._dispatcher = Dispatcher(
            settings.executor,
            load,
            exact=settings.exact,
            max_batch_size=self._max_batch_size,
            max_queue_delay=max_queue_delay,
            max_waiting=max_waiting,
        )
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
        Loads an archive and starts workers for it.

        # Parameters

        archive_path : `Union[str, PathLike]`
            A path or URL of an archive, or a folder with the same content.
        predictor_name, cuda_device, dataset_reader_to_load, frozen, import_plugins, overrides :
            As in AllenNLP's `Predictor.from_path`.
        num_workers : `int`, optional (default = `None`)
            The number of worker processes; by default the CPUs that this process may use.
        settings : `Union[str, PathLike, Dict]`, optional (default = `None`)
            The settings of the pool: a Jsonnet file as for `--parallel-config`, or its content.
            Those of files, progress and checkpoints are not used here.
        predictor_args : `Dict[str, Any]`, optional (default = `None`)
            Arguments of the predictor's `__init__`.
        max_batch_size, max_queue_delay, max_waiting :
            As in the class's `__init__`.

        # Raises

        `SettingsError`
            If a setting does not exist or has a value that it cannot have.
        `TypeError`
            If an argument does not exist.

        # Examples

        ```python
        ParallelPredictor.from_path(
            "model.tar.gz", num_workers=4, settings={"executor.start_method": "spawn"}
        )
        ```
        """
        built = _built(settings, num_workers, cuda_device)

        def load() -> Predictor:
            check_gpus(built.executor.cuda_devices)
            if import_plugins:
                plugins.import_plugins()
            return load_predictor(
                os.fspath(archive_path),
                predictor_name,
                built.executor.loading_device,
                dataset_reader_to_load,
                overrides,
                predictor_args=predictor_args or {},
                frozen=frozen,
            )

        return cls(
            load,
            built,
            max_batch_size=max_batch_size,
            max_queue_delay=max_queue_delay,
            max_waiting=max_waiting,
        )

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
        Starts workers for an archive that is already loaded.

        # Parameters

        archive : `Archive`
            The archive. Its model must be on the CPU; workers with GPUs move their copy there.
        predictor_name, dataset_reader_to_load, frozen :
            As in AllenNLP's `Predictor.from_archive`.
        predictor_args, num_workers, settings, max_batch_size, max_queue_delay, max_waiting :
            As in `from_path`.

        # Raises

        `SettingsError`
            If a setting does not exist or has a value that it cannot have, or the model is on
            another device than the settings need.
        """
        built = _built(settings, num_workers)
        device = next((p.device for p in archive.model.parameters()), None)
        actual = -1 if device is None or device.type == "cpu" else device.index or 0
        if actual != built.executor.loading_device:
            raise SettingsError(
                f"the archive's model is on {device}: load it with "
                f"cuda_device={built.executor.loading_device} for these settings"
            )

        def load() -> Predictor:
            check_gpus(built.executor.cuda_devices)
            return Predictor.from_archive(
                archive, predictor_name, dataset_reader_to_load, frozen, predictor_args
            )

        return cls(
            load,
            built,
            max_batch_size=max_batch_size,
            max_queue_delay=max_queue_delay,
            max_waiting=max_waiting,
        )

    @classmethod
    def from_params(cls: Type[P], params: Union[Params, Dict[str, Any]]) -> P:
        """
        Opens a predictor from one configuration: the arguments of `from_path`, and beside them the
        settings that a file for `--parallel-config` has.

        # Parameters

        params : `Union[Params, Dict[str, Any]]`
            The configuration.

        # Raises

        `SettingsError`
            If a key does not exist, or `archive_path` is missing.

        # Examples

        ```python
        ParallelPredictor.from_params(Params.from_file("service.jsonnet"))
        ```
        """
        values = params.as_dict(quiet=True) if isinstance(params, Params) else dict(params)
        known: List[str] = [*inspect.signature(cls.from_path).parameters]
        known.remove("settings")
        own = list(inspect.signature(Settings.__init__).parameters)[1:]
        settings = {key: values.pop(key) for key in list(values) if key.split(".")[0] in own}
        for key in values:
            if key not in known:
                suggestion = did_you_mean(key, [*known, *own])
                raise SettingsError(f"{key} is not a setting{suggestion}")
        if "archive_path" not in values:
            raise SettingsError("archive_path is missing: the archive to load")
        return cls.from_path(**values, settings=settings)


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
