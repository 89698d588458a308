"""What is wrong with an input, for a person: a sentence in place of a traceback."""

import json
import re
from typing import Any, Optional

from allennlp_parallel_predict.common.errors import shown
from allennlp_parallel_predict.common.messages import Batch, BatchKind
from allennlp_parallel_predict.data.parquet import MAGIC

_READERS = ("load_line", "_json_to_instance", "_batch_json_to_instances")
_PREDICTS = ("predict_json", "predict_batch_json")
_UTF16 = ("\udcff\udcfe", "\udcfe\udcff")
"""A byte order mark, as it is decoded from what is no UTF-8."""


def explain_input(batch: Batch, offset: int, error: BaseException, traceback: str) -> Optional[str]:
    """
    The sentence for an error that the input at an offset is to blame for; `None` if another is. The
    worker's traceback tells what raised it.
    """
    if batch.kind is not BatchKind.LINES or offset >= len(batch.values):
        return None
    line, where = batch.text(offset), batch.line(offset)
    about = f"{shown(repr(line), 100)} ({type(error).__name__}: {shown(_message(error))})"
    if line.startswith(MAGIC) and isinstance(error, (UnicodeDecodeError, json.JSONDecodeError)):
        return (
            f"{where} begins a Parquet file, which cannot be read as lines or from a pipe: {about}"
        )
    if isinstance(error, UnicodeDecodeError):
        hint = "convert the input to UTF-8"
        if line.startswith(_UTF16):
            hint = "it is UTF-16: convert it with iconv -f UTF-16 -t UTF-8"
        return f"{where} is not UTF-8, {hint}: {about}"
    if line.startswith("\ufeff") and isinstance(error, ValueError):
        return f"{where} begins with a byte order mark (BOM): save it as UTF-8 without one: {about}"
    value = _parsed(line)
    if value is _NO_JSON:
        if isinstance(error, json.JSONDecodeError):
            return f"{where} is not JSON: {about}. The input is JSON lines, one object a line"
        return None
    function = _innermost_function(traceback)
    if function not in _READERS + _PREDICTS:
        return None
    if not isinstance(value, dict):
        return f"{where} is not a JSON object: {about}. The input is JSON lines, one object a line"
    if isinstance(error, KeyError) and error.args and error.args[0] not in value:
        keys = ", ".join(map(repr, value)) or "none"
        return f"{where} has no key {error.args[0]!r} but {shown(keys)}: {about}"
    return None


_NO_JSON = object()


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return _NO_JSON


def _message(error: BaseException) -> str:
    # Of "Expecting value: line 1 column 1 (char 0)" the numbers say nothing more.
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def _innermost_function(traceback: str) -> str:
    """The last function of a traceback that has a name: `<listcomp>` is part of one."""
    names = re.findall(r'^  File ".*", line \d+, in ([^<\n]\S*)$', traceback, re.MULTILINE)
    return str(names[-1]) if names else ""
