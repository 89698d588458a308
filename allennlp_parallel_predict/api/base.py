"""How the Python interfaces are opened: the model from an archive, the pool from settings."""

import inspect
import json
import os
from typing import Any, Callable, Dict, List, Optional, Type, TypeVar, Union

from allennlp.common import Params, plugins
from allennlp.common.checks import ConfigurationError, check_for_gpu
from allennlp.models import Archive
from allennlp.predictors import Predictor

from allennlp_parallel_predict.api.dispatcher import Dispatcher, Statistics
from allennlp_parallel_predict.common.errors import SettingsError, user_error_context
from allennlp_parallel_predict.common.messages import OnError
from allennlp_parallel_predict.executors import Executor
from allennlp_parallel_predict.models.archives import load_predictor
from allennlp_parallel_predict.settings import (
    Settings,
    build_settings,
    read_settings,
    set_cuda_device,
    to_on_error,
)

O = TypeVar("O", bound="BasePredictor")  # noqa: E741
SettingsLike = Union[None, str, "os.PathLike[str]", Dict[str, Any]]
"""A Jsonnet file, or what would be in it."""


class BasePredictor:
    """
    The base class of `ParallelPredictor` and `AsyncPredictor`.

    # Parameters

    load : `Callable[[], Predictor]`
        Loads the predictor; called in another thread.
    settings : `Settings`
        The settings of the pool.
    """

    _dispatcher: Dispatcher
    _on_error: OnError

    def __init__(self, load: Callable[[], Predictor], settings: Settings, **options: Any) -> None:
        raise NotImplementedError

    def statistics(self) -> Statistics:
        """What the predictor has done so far, and what it is doing."""
        return self._dispatcher.statistics()

    def _checked(self, on_error: Optional[str]) -> OnError:
        if on_error is None:
            return self._on_error
        return to_on_error(on_error)

    @classmethod
    def from_path(
        cls: Type[O],
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
        **kwargs: Any,
    ) -> O:
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
            What it says about files, progress and checkpoints is not used here.
        predictor_args : `Dict[str, Any]`, optional (default = `None`)
            Arguments of the predictor's `__init__`.
        **kwargs : `Any`
            Other settings of the executor, such as `start_method`, and what this class's `__init__`
            takes. The rest goes to the predictor's `__init__`, as in `Predictor.from_path`.

        # Raises

        `SettingsError`
            If a setting does not exist or has a value that it cannot have.

        # Examples

        ```python
        ParallelPredictor.from_path("model.tar.gz", num_workers=4, start_method="spawn")
        ```
        """
        own = _take(kwargs, _own_parameters(cls))
        built = _settings(settings, num_workers, cuda_device, kwargs)
        arguments = {**(predictor_args or {}), **kwargs}

        def load() -> Predictor:
            _check_gpus(built.executor)
            if import_plugins:
                plugins.import_plugins()
            return load_predictor(
                os.fspath(archive_path),
                predictor_name,
                built.executor.loading_device,
                dataset_reader_to_load,
                overrides,
                predictor_args=arguments,
                frozen=frozen,
            )

        return cls(load, built, **own)

    @classmethod
    def from_archive(
        cls: Type[O],
        archive: Archive,
        predictor_name: Optional[str] = None,
        dataset_reader_to_load: str = "validation",
        frozen: bool = True,
        extra_args: Optional[Dict[str, Any]] = None,
        *,
        num_workers: Optional[int] = None,
        settings: SettingsLike = None,
        **kwargs: Any,
    ) -> O:
        """
        Starts workers for an archive that is already loaded.

        # Parameters

        archive : `Archive`
            The archive. Its model must be on the CPU; workers with GPUs move their copy there.
        predictor_name, dataset_reader_to_load, frozen, extra_args :
            As in AllenNLP's `Predictor.from_archive`.
        num_workers, settings, **kwargs :
            As in `from_path`.
        """
        own = _take(kwargs, _own_parameters(cls))
        built = _settings(settings, num_workers, -1, kwargs)
        if kwargs:
            raise SettingsError(f"{next(iter(kwargs))} is not a setting of {cls.__name__}")
        device = next((p.device for p in archive.model.parameters()), None)
        actual = -1 if device is None or device.type == "cpu" else device.index or 0
        if actual != built.executor.loading_device:
            raise SettingsError(
                f"the archive's model is on {device}: load it with "
                f"cuda_device={built.executor.loading_device} for these settings"
            )

        def load() -> Predictor:
            _check_gpus(built.executor)
            return Predictor.from_archive(
                archive, predictor_name, dataset_reader_to_load, frozen, extra_args
            )

        return cls(load, built, **own)

    @classmethod
    def from_params(cls: Type[O], params: Union[Params, Dict[str, Any]]) -> O:
        """
        Opens what one configuration describes: the arguments of `from_path`, and beside them the
        settings that a file for `--parallel-config` has.

        # Parameters

        params : `Union[Params, Dict[str, Any]]`
            The configuration.

        # Examples

        ```python
        ParallelPredictor.from_params(Params.from_file("service.jsonnet"))
        ```
        """
        values = params.as_dict(quiet=True) if isinstance(params, Params) else dict(params)
        settings = _take(values, list(inspect.signature(Settings.__init__).parameters))
        known = [*inspect.signature(cls.from_path).parameters, *_own_parameters(cls)]
        known = [name for name in known if name not in ("settings", "kwargs")]
        for key in values:
            if key not in known:
                raise SettingsError(f"{key} is not a setting; there are {', '.join(known)}")
        if "archive_path" not in values:
            raise SettingsError("archive_path is missing: the archive to load")
        return cls.from_path(**values, settings=settings)


def _check_gpus(executor: Executor) -> None:
    with user_error_context("cannot use the GPU", ConfigurationError):
        for device in executor.cuda_devices:
            check_for_gpu(device)


def _own_parameters(cls: Type[BasePredictor]) -> List[str]:
    parameters = inspect.signature(cls.__init__).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]


def _take(values: Dict[str, Any], names: List[str]) -> Dict[str, Any]:
    return {name: values.pop(name) for name in names if name in values}


def _settings(
    settings: SettingsLike, num_workers: Optional[int], cuda_device: int, kwargs: Dict[str, Any]
) -> Settings:
    """Builds the settings; takes what is one out of `kwargs`."""
    if isinstance(settings, dict) or settings is None:
        values = read_settings(overrides=json.dumps(settings or {}))
    else:
        values = read_settings(os.fspath(settings))
    executor = values["executor"]
    type_name = executor.get("type", Executor.default_implementation)
    if type_name in Executor.list_available():
        parameters = inspect.signature(Executor.by_name(type_name)).parameters
        executor.update(_take(kwargs, list(parameters)))
    if num_workers is not None:
        executor["num_workers"] = num_workers
    if cuda_device != -1:
        set_cuda_device(executor, cuda_device)
    return build_settings({**values, **_take(kwargs, ["on_error"])})
