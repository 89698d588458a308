"""The columns of a table, and the keys under which the predictor gets them: `--map`."""

from typing import Dict, List, Optional

from allennlp_parallel_predict.common.errors import SettingsError

Columns = Dict[str, str]
"""The names of columns, by the keys that their values get."""


def parse_map(text: str) -> Columns:
    """`"question=q,passage=ctx"` gives the values of the column `q` the key `question`."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    columns = {key: column for key, _, column in pairs}
    if len(columns) < len(pairs) or not all(key and column for key, _, column in pairs):
        raise SettingsError(
            "--map must be KEY=COLUMN with commas between them and no key twice, such as "
            f"question=q,passage=ctx, but it is {text!r}"
        )
    return columns


def select_columns(columns: Optional[Columns], names: List[str]) -> Columns:
    """The columns that are asked for, or else all, of those that exist."""
    columns = columns or {name: name for name in names}
    missing = sorted(set(columns.values()) - set(names))
    if missing:
        raise SettingsError(
            f"the input has no column {', '.join(missing)}; its columns are {', '.join(names)}"
        )
    repeated = sorted({name for name in columns.values() if names.count(name) > 1})
    if repeated:
        raise SettingsError(f"the input has more than one column {', '.join(repeated)}")
    return columns
