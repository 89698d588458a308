"""
Outputs with something of their inputs, or with some of their fields only: `--keep-input`,
`--id-field` and `--output-fields`.
"""

import copy
import json
from typing import Any, Iterable, Iterator, List

from allennlp.predictors.predictor import Predictor

from allennlp_parallel_predict.accelerate.fast_json import encode, is_default_dump_line
from allennlp_parallel_predict.common.errors import JoinError
from allennlp_parallel_predict.common.messages import JoinOptions

INPUT = "input"
"""The field of an output that holds its input."""


class Join:
    """Gives outputs what the options ask for."""

    def __init__(self, options: JoinOptions) -> None:
        self._keep_input = options.keep_input
        self._id_field = options.id_field
        self._paths = [path.split(".") for path in options.output_fields or ()]

    def kept(self, loaded: Any) -> Any:
        """
        The fields that an input gives to its output. They are copied before it is predicted, as a
        predictor may change its input.

        # Raises

        `JoinError`
            If the input has no such field.
        """
        fields = {}
        if self._id_field is not None:
            if not isinstance(loaded, dict) or self._id_field not in loaded:
                raise JoinError(f"--id-field {self._id_field}: the input has no such field")
            fields[self._id_field] = loaded[self._id_field]
        if self._keep_input:
            fields[INPUT] = loaded
        return copy.deepcopy(fields)

    def dump(self, predictor: Predictor, outputs: Iterable[Any], kept: List[Any]) -> Iterator[str]:
        """
        The text of each output.

        # Raises

        `JoinError`
            If an output is no JSON object, or lacks a field, or has one of an input's name.
        """
        is_default = is_default_dump_line(predictor)
        for output, fields in zip(outputs, kept):
            if is_default:
                yield predictor.dump_line(self._joined(output, fields))
            else:
                parsed = _parse(predictor.dump_line(output))
                yield encode(self._joined(parsed, fields)) + "\n"

    def _joined(self, output: Any, fields: Any) -> Any:
        if not isinstance(output, dict):
            raise JoinError(
                "--keep-input, --id-field and --output-fields need outputs that are JSON objects, "
                f"and this one is {type(output).__name__}"
            )
        joined = output
        if self._paths:
            joined = {}
            for path in self._paths:
                _copy_path(path, output, joined, ".".join(path))
        for name, value in fields.items():
            if name in joined and joined[name] != value:
                raise JoinError(
                    f"the output has a field {name!r} of its own, which the input's would replace: "
                    "leave it out by naming the others in --output-fields"
                )
        return {**joined, **fields}


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise JoinError(
            "--keep-input, --id-field and --output-fields need outputs that are JSON objects, and "
            "this predictor's dump_line does not write one"
        ) from None


def _copy_path(path: List[str], source: Any, target: Any, name: str) -> None:
    """Copies one field; a path goes into all objects of a list."""
    key, *rest = path
    if not isinstance(source, dict) or key not in source:
        has = f"has {', '.join(map(str, source))}" if isinstance(source, dict) else "is no object"
        raise JoinError(f"--output-fields {name}: there is no {key!r} in what {has}")
    value = source[key]
    if not rest:
        target[key] = value
    elif isinstance(value, list):
        items = target.setdefault(key, [{} for _ in value])
        for item, of_target in zip(value, items):
            _copy_path(rest, item, of_target, name)
    else:
        _copy_path(rest, value, target.setdefault(key, {}), name)
