"""How an error is printed for people."""

import sys

import pytest

from allennlp_parallel_predict.commands import user_errors
from allennlp_parallel_predict.common import errors


def test_an_explained_error_is_printed_without_a_traceback(capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(OSError) as caught:
        with user_errors.print_user_errors("prog"), errors.user_error_context(
            "cannot read it", OSError
        ):
            raise OSError("gone")
    sys.excepthook(type(caught.value), caught.value, caught.tb)
    assert capsys.readouterr().err == "prog: error: cannot read it: gone\n"


def test_other_errors_are_printed_as_ever(capsys, monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(KeyError) as caught:
        with user_errors.print_user_errors("prog"), errors.user_error_context(
            "cannot read it", OSError
        ):
            raise KeyError("x")
    sys.excepthook(type(caught.value), caught.value, caught.tb)
    assert "Traceback" in capsys.readouterr().err
