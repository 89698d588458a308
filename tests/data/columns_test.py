"""`--map`: which columns of a table are read, and under which keys."""

import pytest

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data.columns import parse_map, select_columns


def test_a_column_may_have_any_name():
    assert parse_map("question=q,passage=a=b c") == {"question": "q", "passage": "a=b c"}
    assert parse_map("a=x,b=x") == {"a": "x", "b": "x"}


@pytest.mark.parametrize("text", ["", "a", "a=", "=b", "a=b,", "a=b,a=c"])
def test_no_map(text):
    with pytest.raises(SettingsError, match="--map must be KEY=COLUMN"):
        parse_map(text)


def test_all_columns_by_default():
    assert select_columns(None, ["a", "b"]) == {"a": "a", "b": "b"}
    assert select_columns({"k": "b"}, ["a", "b"]) == {"k": "b"}


def test_a_name_of_two_columns_is_refused():
    with pytest.raises(SettingsError, match="more than one column b$"):
        select_columns(None, ["a", "b", "b"])
    assert select_columns({"k": "a"}, ["a", "b", "b"]) == {"k": "a"}


def test_the_columns_that_exist_are_named():
    with pytest.raises(SettingsError, match="no column c, d; its columns are a, b$"):
        select_columns({"k": "d", "l": "c", "m": "a"}, ["a", "b"])
