"""A table with everything that a text of it has to quote, written and read."""

import csv
import json
from typing import Any, Dict, List, Sequence, Tuple

from allennlp_parallel_predict.data.formats import Format, FormattedSource

ROWS = [
    ["id", "text"],
    ["1", 'a "quoted" word, and a comma'],
    ["2", "two\r\nlines\nand a third\n"],
    ["", ""],
    ["4", "ü\ttab " + "long " * 40_000],
]


def read(path: Any, *format: Any, first: int = 0) -> List[Tuple[int, int, Any]]:
    """The position, line number and content of each input, from the position `first` on."""
    items = [item for item in FormattedSource(str(path), Format(*format), first) if item]
    return [(item.position, item.line_number, json.loads(item.value)) for item in items]


def as_records(rows: Sequence[Sequence[str]] = ROWS) -> List[Dict[str, str]]:
    return [dict(zip(rows[0], row)) for row in rows[1:]]


def write(path: Any, rows: Sequence[Sequence[str]] = ROWS, **options: Any) -> None:
    """Writes them as Python's csv does."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, **options).writerows(rows)
