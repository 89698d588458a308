"""
Outputs that are Parquet files. A run writes lines to a file beside the output, as it can go on
there after an interruption; when it is complete, they are converted. docs/files.md has the rules.
"""

import contextlib
import json
import os
from typing import Any, Dict, Iterable, Iterator, List, Optional, Tuple

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

    def convert(self) -> None:
        """Makes the output of a complete run; the lines are still there."""
        self.flush()
        table, temporary = _Table(self._pyarrow, self.path), f"{self.path}.tmp"
        with writing(self._target):
            try:
                while not self._write(table, temporary):
                    pass
                os.rename(temporary, self._target)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
            sync_folder(self._target)

    def remove_lines(self) -> None:
        with writing(self.path):
            os.unlink(self.path)

    def _write(self, table: "_Table", path: str) -> bool:
        """Writes the table; returns whether all columns were of the types that they should be."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o666), "wb") as file:
            with self._pyarrow.parquet.ParquetWriter(file, table.schema()) as writer:
                for arrays in table.row_groups():
                    if arrays is None:
                        return False
                    writer.write_table(self._pyarrow.table(arrays, schema=table.schema()))
            file.flush()
            os.fsync(file.fileno())
        return True


class _Table:
    """The lines of a file as a table; the types of its columns are found by reading all of them."""

    def __init__(self, pyarrow: Any, path: str) -> None:
        self._pyarrow = pyarrow
        self._path = path
        self._json = pyarrow.large_string()
        """The type of a column of JSON text; one of text is a `pyarrow.string()`."""
        self._types: Dict[str, Any] = {}
        for rows in self._chunks():
            for name in dict.fromkeys(name for row in rows for name in row):
                array = self._array([row.get(name) for row in rows], None)
                known = self._types.get(name, pyarrow.null())
                type = self._json if array is None else array.type
                self._types[name] = self._unified(known, type)
        for name, type in self._types.items():
            if "struct<>" in str(type):  # Parquet has no objects without fields
                self._types[name] = self._json

    def schema(self) -> Any:
        return self._pyarrow.schema(self._types.items())

    def row_groups(self) -> Iterator[Optional[List[Any]]]:
        """The columns of each row group; `None` where the type of one had to be changed."""
        for rows in self._chunks():
            arrays = []
            for name, type in self._types.items():
                arrays.append(self._array([row.get(name) for row in rows], type))
                if arrays[-1] is None:
                    self._types[name] = self._json
                    yield None
            yield arrays

    def _chunks(self) -> Iterator[List[Dict[str, Any]]]:
        with open(self._path, encoding=ENCODING, newline="\n") as file:
            for lines in iter(lambda: file.readlines(_CHARACTERS), []):
                yield [_row(line) for line in lines if not line.isspace()]

    def _array(self, values: List[Any], type: Any) -> Any:
        """`None` if the values do not have this type, or any type in common."""
        if type == self._json:
            values = [None if value is None else json.dumps(value) for value in values]
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
