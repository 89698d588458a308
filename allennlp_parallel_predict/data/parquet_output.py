"""
Outputs that are Parquet files. A run writes lines to a file beside the output, as it can go on
there after an interruption; when it is complete, they are converted. docs/files.md has the rules.
"""

import contextlib
import json
import os
from typing import Any, Dict, Iterable, Iterator, List, Tuple

from allennlp_parallel_predict.data.files import OutputFile, sync_folder, writing
from allennlp_parallel_predict.data.sinks import ENCODING

_CHARACTERS = 1 << 21
"""Of the lines that become one row group: what is in memory."""
_WHOLE = "output"
"""The column of what is no object."""


def lines_file(path: str) -> str:
    """Where the lines are kept until they are converted."""
    return f"{os.path.realpath(path)}.lines"


class ConvertedFile(OutputFile):
    """Lines in a file beside `path`, which become that Parquet file."""

    def __init__(self, path: str, pyarrow: Any) -> None:
        super().__init__(lines_file(path))
        self._target = os.path.realpath(path)
        self._pyarrow = pyarrow
        self._json = pyarrow.large_string()
        """The type of a column of JSON text; one of text is a `pyarrow.string()`."""

    def convert(self) -> None:
        """Makes the output of a complete run; the lines are still there."""
        self.flush()
        types, temporary = self._types(), f"{self.path}.tmp"
        with writing(self._target):
            try:
                while not self._write(temporary, types):
                    pass
                os.rename(temporary, self._target)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
            sync_folder(self._target)

    def remove_lines(self) -> None:
        with writing(self.path):
            os.unlink(self.path)

    def _types(self) -> Dict[str, Any]:
        """The type of each column, of which all values are looked at."""
        types: Dict[str, Any] = {}
        for rows in self._chunks():
            for name in dict.fromkeys(name for row in rows for name in row):
                array = self._array(rows, name, None)
                type = self._json if array is None else array.type
                types[name] = self._unified(types.get(name, type), type)
        # Parquet has no objects without fields.
        return {name: self._json if "struct<>" in str(t) else t for name, t in types.items()}

    def _write(self, path: str, types: Dict[str, Any]) -> bool:
        """Writes the table, or changes a type that does not hold all values for another try."""
        schema = self._pyarrow.schema(types.items())
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o666), "wb") as file:
            with self._pyarrow.parquet.ParquetWriter(file, schema) as writer:
                for rows in self._chunks():
                    arrays = {name: self._array(rows, name, type) for name, type in types.items()}
                    misfits = [name for name, array in arrays.items() if array is None]
                    if misfits:
                        types.update(dict.fromkeys(misfits, self._json))
                        return False
                    writer.write_table(self._pyarrow.table(arrays, schema=schema))
            file.flush()
            os.fsync(file.fileno())
        return True

    def _chunks(self) -> Iterator[List[Dict[str, Any]]]:
        with open(self.path, encoding=ENCODING, newline="\n") as file:
            for lines in iter(lambda: file.readlines(_CHARACTERS), []):
                yield [_row(line) for line in lines if not line.isspace()]

    def _array(self, rows: List[Dict[str, Any]], name: str, type: Any) -> Any:
        """`None` if the values do not have this type, or any type in common."""
        values = [row.get(name) for row in rows]
        if type == self._json:
            values = [None if value is None else json.dumps(value) for value in values]
        elif len({isinstance(value, bool) for value in values if value is not None}) > 1:
            return None  # pyarrow would make numbers of true and false
        try:
            return self._pyarrow.array(values, type)
        except (self._pyarrow.ArrowException, ValueError, OverflowError):
            return None

    def _unified(self, *types: Any) -> Any:
        schemas = [self._pyarrow.schema([("", type)]) for type in types]
        try:
            unified = self._pyarrow.unify_schemas(schemas, promote_options="permissive")
            return unified.field(0).type
        except self._pyarrow.ArrowException:
            return self._json


def _row(line: str) -> Dict[str, Any]:
    value: Any = line.rstrip("\n")
    with contextlib.suppress(ValueError):
        value = json.loads(line)
    fields = list(_flattened(value.items())) if isinstance(value, dict) else []
    row = dict(fields)
    # No object, one without fields, or one in which two fields have one flattened name.
    return row if row and len(row) == len(fields) else {_WHOLE: value}


def _flattened(fields: Iterable[Tuple[str, Any]], prefix: str = "") -> Iterator[Tuple[str, Any]]:
    for name, value in fields:
        if value and isinstance(value, dict):
            yield from _flattened(value.items(), f"{prefix}{name}.")
        else:
            yield prefix + name, value
