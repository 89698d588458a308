"""Inputs that are Parquet files. Their rows become JSON lines, as those of other tables do."""

import json
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Iterator, Optional

from allennlp.common.file_utils import cached_path

from allennlp_parallel_predict.common.errors import SettingsError, user_error_context
from allennlp_parallel_predict.common.extras import import_extra
from allennlp_parallel_predict.data.columns import Columns, select_columns
from allennlp_parallel_predict.data.inputs import Input, InvalidInput
from allennlp_parallel_predict.data.sources import Source, reads_once

MAGIC = "PAR1"
"""How each Parquet file begins, and no JSON line."""
_ROWS = 1024
_PAGES = 1 << 16
"""Bytes of each column that are read at once."""


def import_pyarrow(what: str) -> Any:
    """The library, or an error about what needs it; see `import_extra`."""
    return [import_extra(name, "parquet", what) for name in ("pyarrow.parquet", "pyarrow")][-1]


def is_parquet(input_file: str) -> bool:
    """Whether an input, which is no pipe, begins like a Parquet file."""
    with user_error_context("cannot read the input file", OSError):
        with open(cached_path(input_file), "rb") as file:
            return file.read(len(MAGIC)) == MAGIC.encode()


class ParquetSource(Source):
    """
    The rows of a Parquet file, read page by page: memory grows neither with the file nor with its
    row groups. The parameters are those of a `FormattedSource` and its `Format`.

    # Raises

    `SettingsError`
        If the library is missing, or if the input is a pipe.
    """

    encoding = "UTF-8"  # workers look at each line
    is_indexed = True

    def __init__(
        self, input_file: str, columns: Optional[Columns] = None, first_position: int = 0
    ) -> None:
        if reads_once(input_file):
            raise SettingsError(
                "Parquet cannot be read from standard input or a pipe, as its index is at its "
                "end: write it to a file and give the file's name"
            )
        self._pyarrow = import_pyarrow(f"reading {input_file}")
        self._input_file = input_file
        self._columns = columns
        self._first_position = first_position

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        errors = (OSError, self._pyarrow.ArrowException)
        with user_error_context(f"cannot read {self._input_file} as Parquet", *errors):
            open_file, path = self._pyarrow.parquet.ParquetFile, cached_path(self._input_file)
            with open_file(path, buffer_size=_PAGES, pre_buffer=False) as file:
                yield file

    def __iter__(self) -> Iterator[Optional[Input]]:
        with self._opened() as file:
            columns = select_columns(self._columns, file.schema_arrow.names)
            position, groups = 0, list(range(file.num_row_groups))
            sizes = [file.metadata.row_group(group).num_rows for group in groups]
            while groups and position + sizes[groups[0]] <= self._first_position:
                position += sizes[groups.pop(0)]
            # Without threads, as those do not survive the forks of workers.
            batches = file.iter_batches(_ROWS, groups, list(columns.values()), use_threads=False)
            for batch in batches:
                for row in range(batch.num_rows):
                    if position >= self._first_position:
                        yield Input(position, position + 1, _line(batch, row, columns, position))
                    position += 1

    def total(self) -> Optional[int]:
        with self._opened() as file:
            return int(file.metadata.num_rows)


def _line(batch: Any, row: int, columns: Columns, position: int) -> str:
    """A row; one with a value that JSON cannot express is an invalid input."""
    cells, problem = [], ""
    for key, column in columns.items():
        try:
            cell = _dump(batch.column(column)[row].as_py())
        except (ValueError, OverflowError) as error:
            why = f"JSON cannot express its value: {error}"
            cell, problem = "null", f"input row {position + 1}, column {column}: {why}"
        cells.append(f"{_dump(key)}: {cell}")
    line = "{" + ", ".join(cells) + "}\n"
    return InvalidInput.of(line, problem) if problem else line


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=_as_json)


def _as_json(value: Any) -> Any:
    """What stands for a value that has no JSON: see docs/files.md."""
    if isinstance(value, bytes):
        return value.decode("utf-8")  # some tools write texts as bytes
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
