"""
Inputs that are no JSON lines: plain text, CSV and TSV, and Parquet (`parquet.py`). They become JSON
lines here, so that all that comes after a source knows nothing else.
"""

import csv
import json
import os
import sys
from collections import deque
from typing import Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union
from urllib.parse import urlparse

from allennlp.predictors.predictor import Predictor

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data.columns import Columns, select_columns
from allennlp_parallel_predict.data.inputs import Input, InvalidInput
from allennlp_parallel_predict.data.parquet import ParquetSource, is_parquet
from allennlp_parallel_predict.data.sources import LineSource, Source, reads_once

LINES, TEXT, CSV, TSV, PARQUET = "lines", "text", "csv", "tsv", "parquet"
FORMATS = (LINES, TEXT, CSV, TSV, PARQUET)
_DELIMITERS = {CSV: ",", TSV: "\t"}
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst")

Record = Tuple[int, Union[Dict[str, str], InvalidInput]]
"""The number of its first line, and its fields."""


class Format(NamedTuple):
    """How the text of an input is divided into inputs."""

    name: str = LINES
    text_field: str = "sentence"
    """The key of a line of plain text."""
    fields: Optional[List[str]] = None
    """The keys of the columns of a table without a header."""
    columns: Optional[Columns] = None
    """The columns of a table that are wanted, if not all."""


def format_by_name(input_file: str, predictor: Predictor) -> str:
    """
    The format of an input whose format is not given: a table if its name says so, or Parquet if it
    begins so. `allennlp predict` reads all files as lines, so this must not be one that it could
    read.
    """
    table = table_by_name(input_file)
    if table == LINES:
        return LINES
    if getattr(predictor.load_line, "__func__", None) is not Predictor.load_line:
        return LINES
    if is_parquet(input_file):
        return PARQUET
    first = next((item.value for item in LineSource(input_file) if item is not None), "{")
    return LINES if first.lstrip().startswith("{") else table


def table_by_name(input_file: str) -> str:
    """What kind of table an input may be; `LINES` for one that is none."""
    if reads_once(input_file):
        return LINES
    suffix = os.path.splitext(without_compression(urlparse(input_file).path))[1]
    if suffix[1:] in (*_DELIMITERS, PARQUET):
        return suffix[1:]
    return PARQUET if is_parquet(input_file) else LINES


def without_compression(name: str) -> str:
    """The name of a file without a suffix of a compressed one."""
    root, suffix = os.path.splitext(name)
    return root if suffix in _COMPRESSED else name


def open_source(input_file: str, format: Format, start: Tuple[int, int] = (0, 0)) -> Source:
    """What reads an input after the lines and inputs that an interrupted run has dealt with."""
    lines, positions = start
    if format.name == PARQUET:
        return ParquetSource(input_file, format.columns, positions)
    if format.columns is not None and format.name not in _DELIMITERS:
        raise SettingsError(
            f"--map needs an input with columns (csv, tsv, parquet), and {input_file} is read as "
            f"{format.name}: give --input-format"
        )
    if format.name == LINES:
        return LineSource(input_file, lines, positions)
    return FormattedSource(input_file, format, positions)


class FormattedSource(Source):
    """
    # Parameters

    input_file : `str`
        As for `LineSource`.
    format : `Format`
        How it is divided.
    first_position : `int`, optional (default = `0`)
        The number of inputs that an interrupted run has dealt with.
    """

    def __init__(self, input_file: str, format: Format, first_position: int = 0) -> None:
        self._lines = LineSource(input_file, newline="")
        self.encoding = self._lines.encoding or "UTF-8"  # workers look at each line
        self._format = format
        self._first_position = first_position

    def __iter__(self) -> Iterator[Optional[Input]]:
        records = self._texts() if self._format.name == TEXT else self._rows()
        position = 0
        for record in records:
            if record is None:
                yield None
                continue
            if position >= self._first_position:
                number, value = record
                # Surrogates stay surrogates: the worker that gets the line raises the error.
                is_invalid = isinstance(value, InvalidInput)
                line = value if is_invalid else json.dumps(value, ensure_ascii=False) + "\n"
                yield Input(position, number, line)
            position += 1

    def fileno(self) -> Optional[int]:
        return self._lines.fileno()

    def total(self) -> Optional[int]:
        return self._lines.total()

    def _texts(self) -> Iterator[Optional[Record]]:
        for item in self._lines:
            if item is None:
                yield None
                continue
            text = item.value.rstrip("\r\n")
            if item.line_number == 1:
                text = text.lstrip("\ufeff")
            yield item.line_number, {self._format.text_field: text}

    def _rows(self) -> Iterator[Optional[Record]]:
        fields = self._format.fields
        columns: Columns = {}
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # 128 KB is less than a long document
        for row in _Rows(self._lines.lines(), _DELIMITERS[self._format.name]):
            if row is None:
                yield None
                continue
            number, text, cells, problem = row
            if fields is None:
                fields = _header(cells, problem)
                continue
            columns = columns or select_columns(self._format.columns, fields)
            if problem is None and len(cells) != len(fields):
                problem = (
                    f"input line {number} has {len(cells)} fields, and not {len(fields)} "
                    f"({', '.join(fields)}): correct it, or quote what has a delimiter in it"
                )
            if problem is None:
                row_of = dict(zip(fields, cells))
                yield number, {key: row_of[column] for key, column in columns.items()}
            else:
                yield number, InvalidInput.of(text, problem)


def _header(cells: List[str], problem: Optional[str]) -> List[str]:
    if problem is not None:
        raise SettingsError(problem)
    if len(set(cells)) < len(cells):
        raise SettingsError(
            f"the header of the input has a name twice: {', '.join(cells)}. If there is no "
            "header, name the columns with --fields"
        )
    return cells


class Row(NamedTuple):
    """A row of a table."""

    number: int
    """Of its first line."""
    text: str
    cells: List[str]
    problem: Optional[str]
    """Why it is none."""


class _NothingYet(Exception):
    """The input is a pipe whose writer has not written a whole row."""


class _Calling:
    """An iterator that, unlike a generator, goes on after an exception."""

    def __init__(self, function: Callable[[], str]) -> None:
        self._function = function

    def __iter__(self) -> "_Calling":
        return self

    def __next__(self) -> str:
        return self._function()


class _Rows:
    """
    The rows of a table, each with the number of its first line, or `None` instead of waiting.

    A `csv.reader` forgets an unfinished row when its lines raise an exception, so that row's lines
    are given to it again.
    """

    def __init__(self, lines: Iterator[Optional[str]], delimiter: str) -> None:
        self._lines = lines
        self._again: Deque[str] = deque()
        self._of_row: List[str] = []
        self._reader = csv.reader(_Calling(self._next_line), delimiter=delimiter, strict=True)

    def _next_line(self) -> str:
        line = self._again.popleft() if self._again else next(self._lines)
        if line is None:
            raise _NothingYet()
        self._of_row.append(line)
        return line

    def __iter__(self) -> Iterator[Optional[Row]]:
        finished = 0
        while True:
            self._of_row = []
            problem = None
            try:
                row = next(self._reader)
            except _NothingYet:
                self._again.extend(self._of_row)
                yield None
                continue
            except StopIteration:
                return
            except csv.Error as error:
                row = []
                problem = f"input line {finished + 1} does not begin a row of a table: {error}"
            if finished == 0 and row:
                row[0] = row[0].lstrip("\ufeff")
            number, finished = finished + 1, finished + len(self._of_row)
            if row or problem:
                yield Row(number, "".join(self._of_row), row, problem)
