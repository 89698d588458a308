"""Exceptions on their way between processes."""

import json
import pickle
import sys
import traceback

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_parallel_predict.common import errors
from allennlp_parallel_predict.common.remote_errors import RemoteError


class TwoArguments(Exception):
    """Pickle makes it again with one."""

    def __init__(self, code, text):
        super().__init__(text)


class OwnNew(Exception):
    def __new__(cls, *args):
        if len(args) != 2:
            raise TypeError
        return super().__new__(cls)

    def __init__(self, one, two):
        super().__init__("only this")


class Awkward(Exception):
    """pickle rebuilds exceptions from `args`, with which this one cannot be called."""

    def __init__(self, code, *, text):
        super().__init__(f"{code}: {text}")
        self.code = code


def remote(error):
    try:
        raise error
    except BaseException as caught:
        return pickle.loads(pickle.dumps(RemoteError.of(caught)))


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        ValueError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
        json.JSONDecodeError("bad", "{", 1),
        FileNotFoundError(2, "no such file", "x"),
        ConfigurationError("wrong"),
        SystemExit(4),
        errors.WorkerDied("worker 3 died"),
        errors.SettingsError("wrong"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_keep_type_and_message(error):
    rebuilt = remote(error).rebuild()
    assert type(rebuilt) is type(error)
    assert str(rebuilt) == str(error)
    assert "test_exceptions_keep_type" not in str(rebuilt)
    assert type(error).__name__ in str(rebuilt.__cause__)


def test_an_exception_that_pickle_cannot_rebuild_keeps_type_and_attributes():
    rebuilt = remote(Awkward(7, text="x")).rebuild()
    assert type(rebuilt) is Awkward
    assert (str(rebuilt), rebuilt.code) == ("7: x", 7)


def test_a_class_inside_a_function_is_found():
    class Local(Exception):
        pass

    assert type(remote(Local("x")).rebuild()) is Local


def test_a_class_that_is_not_here_becomes_a_prediction_error():
    rebuilt = RemoteError("not.there", "Strange", "it hurts", "tb", None, None).rebuild()
    assert type(rebuilt) is errors.PredictionError
    assert str(rebuilt) == "not.there.Strange: it hurts"


def test_an_exception_that_holds_what_cannot_be_pickled_keeps_type_and_message():
    error = ValueError("x")
    error.generator = (i for i in [])
    rebuilt = remote(error).rebuild()
    assert type(rebuilt) is ValueError and str(rebuilt) == "x"


def test_an_exception_that_holds_what_pickle_cannot_rebuild_keeps_type_and_message():
    rebuilt = remote(RuntimeError(TwoArguments(1, "x"))).rebuild()
    assert type(rebuilt) is RuntimeError and str(rebuilt) == "x"


def test_an_exception_that_is_made_in_a_way_of_its_own():
    rebuilt = remote(OwnNew(1, 2)).rebuild()
    assert type(rebuilt) is errors.PredictionError and "OwnNew" in str(rebuilt)


class Hostile(Exception):
    """Its own methods fail, each with what would end a process or a thread."""

    def __init__(self, *args):
        super().__init__(*args)
        self.armed = True

    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__

    def __reduce__(self):
        raise KeyboardInterrupt


class ExitsWhenRebuilt(Exception):
    def __reduce__(self):
        return sys.exit, (5,)


class ExitsInNew(Exception):
    def __new__(cls, *args):
        if args != ("original",):
            sys.exit(6)
        return super().__new__(cls)

    def __init__(self, text):
        super().__init__()


def test_an_exception_whose_methods_fail_keeps_its_type():
    rebuilt = remote(Hostile("x"))
    assert "__str__ raises SystemExit" in rebuilt.message
    assert "in remote" in rebuilt.traceback and "Hostile" in rebuilt.traceback
    assert type(rebuilt.rebuild()) is Hostile


@pytest.mark.parametrize("error", [ExitsWhenRebuilt("x"), ExitsInNew("original")])
def test_what_exits_when_it_is_rebuilt_exits_nobody(error):
    assert isinstance(remote(error).rebuild(), (type(error), errors.PredictionError))


def test_what_is_no_exception_class_is_not_called():
    rebuilt = RemoteError("os", "system", "exit 7", "tb", None, None).rebuild()
    assert type(rebuilt) is errors.PredictionError


def test_an_enormous_message_is_shortened():
    error = remote(ValueError("a" * 50_000_000 + "the end"))
    assert len(pickle.dumps(error)) < 2_000_000
    message = str(error.rebuild())
    assert type(error.rebuild()) is ValueError
    assert len(message) < 200_000 and message.endswith("the end")
    assert "characters ..." in message


def test_the_remote_traceback_is_printed_with_where_it_happened():
    rebuilt = remote(KeyError("x")).rebuild("In a worker, at input line 3: {}")
    text = "".join(traceback.format_exception(type(rebuilt), rebuilt, None))
    assert "at input line 3" in text and "in remote" in text and "KeyError: 'x'" in text
