"""How an error is printed for people."""

import sys

import pytest

from allennlp_parallel_predict.commands import user_errors
from allennlp_parallel_predict.common import errors


@pytest.fixture
def printed(capsys, monkeypatch):
    """What the interpreter prints of an error, for an `OSError` with an explanation."""

    def print_error(error):
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        with pytest.raises(type(error)) as caught:
            with user_errors.print_user_errors("prog"), errors.user_error_context(
                "cannot read it", OSError
            ):
                raise error
        sys.excepthook(type(caught.value), caught.value, caught.tb)
        return capsys.readouterr().err

    return print_error


def test_an_explained_error_is_printed_without_a_traceback(printed):
    assert printed(OSError("gone")) == "prog: error: cannot read it: gone\n"


def test_other_errors_are_printed_as_ever(printed):
    assert "Traceback" in printed(KeyError("x"))
