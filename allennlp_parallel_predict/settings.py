"""
The settings of a run, from a Jsonnet file, overrides and flags, as objects built by AllenNLP's
`FromParams`. What can be wrong with them is said in terms of the keys that the user wrote.
"""

import inspect
import json
import re
from typing import Any, Dict, List, Optional, Type, Union

from allennlp.common import FromParams, Params, Registrable
from allennlp.common.checks import ConfigurationError
from allennlp.common.params import parse_overrides, with_overrides

from allennlp_parallel_predict.common.errors import SettingsError, check_at_least
from allennlp_parallel_predict.common.messages import OnError, Precision
from allennlp_parallel_predict.common.suggestions import did_you_mean
from allennlp_parallel_predict.data.batching import Batching
from allennlp_parallel_predict.executors import Executor, InProcessExecutor

PROGRESS = ("auto", "always", "never", "json", "json:FD")


class Settings(FromParams):
    """
    # Parameters

    executor : `Executor`, optional (default = `{type: "process_pool"}`)
        What runs the batches.
    batching : `Batching`, optional (default = `{type: "in_order", batch_size: 1}`)
        How inputs are grouped.
    exact : `bool`, optional (default = `True`)
        Whether the numbers have to be those of `allennlp predict` to the last bit. If not, workers
        take the fastest way that they know, in which last digits may differ.
    on_error : `str`, optional (default = `"raise"`)
        What happens at an input that cannot be predicted: `"raise"` ends the run, `"skip"` leaves
        it out of the output, `"placeholder"` writes the error in its place.
    max_errors : `int`, optional (default = `None`)
        The number of failed inputs after which a run ends that does not raise.
    progress : `str`, optional (default = `"auto"`)
        Whether a progress bar is drawn: `"always"`, `"never"`, or if stderr is a terminal; or
        `"json"` for a JSON object a second, `"json:3"` for that on file descriptor 3.
    checkpoint_interval : `float`, optional (default = `5.0`)
        The seconds between two checkpoints.
    precision : `str`, optional (default = `"fp32"`)
        In how many bits the model computes: `"fp32"`, as `allennlp predict`, or, never exact,
        `"bf16"`, and on GPUs `"tf32"` and `"fp16"`.
    precision_sample : `int`, optional (default = `256`)
        The number of inputs that are predicted in fp32 too, before anything is written.
    precision_min_agreement : `float`, optional (default = `0.995`)
        The part of the labels of the sample that has to be as in fp32; else the run ends.
    """

    def __init__(
        self,
        executor: Executor,
        batching: Batching,
        exact: bool = True,
        on_error: str = "raise",
        max_errors: Optional[int] = None,
        progress: str = "auto",
        checkpoint_interval: float = 5.0,
        precision: str = "fp32",
        precision_sample: int = 256,
        precision_min_agreement: float = 0.995,
    ) -> None:
        self.on_error = to_on_error(on_error)
        check_choice("progress", re.sub(r"^json:\d+$", "json:FD", progress), PROGRESS)
        check_at_least(0, max_errors=max_errors, checkpoint_interval=checkpoint_interval)
        check_at_least(0, "executor.", cuda_devices=min(executor.cuda_devices, default=None))
        check_at_least(0, precision_sample=precision_sample)
        if not 0 <= precision_min_agreement <= 1:
            raise SettingsError(
                f"precision_min_agreement must be from 0 to 1, but it is {precision_min_agreement}"
            )
        if max_errors is not None and self.on_error == OnError.RAISE:
            raise SettingsError("max_errors needs on_error 'skip' or 'placeholder'")
        self.precision = _to_precision(precision, executor)
        self.precision_sample = precision_sample
        self.precision_min_agreement = precision_min_agreement
        self.executor = executor
        self.batching = batching
        self.exact = exact
        self.max_errors = max_errors
        self.progress = progress
        self.checkpoint_interval = checkpoint_interval

    @property
    def is_exact(self) -> bool:
        """Whether the output has to have all bits of `predict`'s."""
        return self.exact and self.batching.exact and self.precision == Precision.FP32


def read_settings(
    config_file: Optional[str] = None, overrides: str = "", flags: Optional[Dict[str, Any]] = None
) -> Dict[str, Any]:
    """
    Reads the settings as a dictionary.

    # Parameters

    config_file : `str`, optional (default = `None`)
        A Jsonnet file; environment variables are its external variables.
    overrides : `str`, optional (default = `""`)
        JSON that changes it, by the rules of AllenNLP's `--overrides`.
    flags : `Dict[str, Any]`, optional (default = `None`)
        Dotted keys from the command line, which win.

    # Raises

    `SettingsError`
        If a file or an override cannot be read.

    # Examples

    ```python
    read_settings("pool.jsonnet", '{"executor.num_workers": 8}', {"batching.batch_size": 32})
    ```
    """
    values: Dict[str, Any] = {}
    try:
        if config_file is not None:
            values = Params.from_file(config_file).as_dict(quiet=True)
        for changes in (parse_overrides(overrides), flags or {}):
            values = with_overrides(_with_sections(values), changes)
    except (OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        what = f"--parallel-config {config_file}" if config_file else "--parallel-overrides"
        raise SettingsError(f"cannot read the settings ({what}): {str(error).strip()}") from error
    return _with_sections(values)


def set_cuda_device(executor: Dict[str, Any], device: int) -> None:
    """
    Puts `--cuda-device` into the settings of the executor.

    # Raises

    `SettingsError`
        If they have `cuda_devices` too.
    """
    if "cuda_devices" in executor:
        raise SettingsError(
            "give either --cuda-device (one GPU, or -1 for none) or executor.cuda_devices "
            "(a list of GPUs), not both"
        )
    if device >= 0:
        executor["cuda_devices"] = [device]


def build_settings(values: Dict[str, Any]) -> Settings:
    """
    # Raises

    `SettingsError`
        If a key does not exist or a value is of the wrong type or out of range.
    """
    sections = {
        key: _section_class(key, values[key], registrable)
        for key, registrable in (("executor", Executor), ("batching", Batching))
    }
    known = _keys(Settings)
    known += [f"{key}.{name}" for key, owner in sections.items() for name in _keys(owner)]
    _check_keys("", values, Settings, known)
    for key, owner in sections.items():
        _check_keys(f"{key}.", values[key], owner, known)
    try:
        return Settings.from_params(Params(json.loads(json.dumps(values))))
    except SettingsError:
        raise
    except (ConfigurationError, TypeError, ValueError) as error:
        raise SettingsError(f"the settings cannot be used: {error}") from error


def _with_sections(values: Any) -> Dict[str, Any]:
    if not isinstance(values, dict):
        raise ValueError(f"an object is expected, not {json.dumps(values)}")
    sections = {key: values.get(key, {}) for key in ("executor", "batching")}
    sections = {k: {"type": v} if isinstance(v, str) else v for k, v in sections.items()}
    return {**values, **sections}


def _section_class(section: str, values: Any, registrable: Type[Registrable]) -> Type[Any]:
    if not isinstance(values, dict):
        raise SettingsError(f"{section} must be an object, but it is {json.dumps(values)}")
    available = registrable.list_available()
    name = str(values.get("type", registrable.default_implementation))
    try:
        return registrable.resolve_class_name(name)[0]
    except ConfigurationError as error:
        raise SettingsError(
            f"{section}.type {name!r} does not exist{did_you_mean(name, available)} "
            f"It can be {', '.join(available)}"
        ) from error


def _check_keys(prefix: str, values: Dict[str, Any], owner: Type[Any], known: List[str]) -> None:
    """`known` has the dotted keys of all sections, of which one may have been meant."""
    parameters = inspect.signature(owner.__init__).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for key, value in values.items():
        if key == "type" and prefix:
            continue
        if key not in parameters:
            own = [f"{prefix}{name}" for name in _keys(owner)]
            raise SettingsError(
                f"{prefix}{key} is not a setting{did_you_mean(prefix + key, known)} "
                f"{'These exist' if len(own) > 1 else 'This exists'}: {', '.join(own)}"
            )
        _check_type(f"{prefix}{key}", value, parameters[key].annotation)


def _keys(owner: Type[Any]) -> List[str]:
    return list(inspect.signature(owner.__init__).parameters)[1:]


_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a string"}


def _check_type(key: str, value: Any, annotation: Any) -> None:
    """Checks simple types; the others are left to `FromParams`."""
    is_union = getattr(annotation, "__origin__", None) is Union
    allowed = annotation.__args__ if is_union else (annotation,)
    if not all(t in _NAMES or t in (type(None), List[int]) for t in allowed):
        return
    if any(_is_a(value, t) for t in allowed):
        return
    names = [_NAMES.get(t, "null" if t is type(None) else "a list of numbers") for t in allowed]
    raise SettingsError(f"{key} must be {' or '.join(names)}, but it is {json.dumps(value)}")


def _is_a(value: Any, expected: Any) -> bool:
    if expected is List[int]:
        return isinstance(value, list) and all(type(item) is int for item in value)
    if expected is float:
        return type(value) in (int, float)
    return type(value) is expected


def to_on_error(value: str) -> OnError:
    """
    # Raises

    `SettingsError`
        If there is no such way to treat errors.
    """
    check_choice("on_error", value, [member.value for member in OnError])
    return OnError(value)


def _to_precision(value: str, executor: Executor) -> Precision:
    check_choice("precision", value, [member.value for member in Precision])
    precision = Precision(value)
    if precision != Precision.FP32 and isinstance(executor, InProcessExecutor):
        raise SettingsError(f"precision {value!r} needs an executor.type other than 'in_process'")
    on_gpus = executor.cuda_devices or executor.settings().get("num_gpus_per_worker", 0)
    if precision in (Precision.TF32, Precision.FP16) and not on_gpus:
        raise SettingsError(
            f"precision {value!r} needs a GPU (--cuda-device 0, or executor.cuda_devices): on CPUs "
            "there are 'fp32' and 'bf16', of which the second is slow without AMX or AVX512_BF16"
        )
    return precision


def check_choice(key: str, value: str, choices: Any) -> None:
    if value not in choices:
        raise SettingsError(f"{key} must be one of {', '.join(choices)}, but it is {value!r}")
