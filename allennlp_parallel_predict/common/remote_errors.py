"""Exceptions on their way between processes: they keep their type and show the remote traceback."""

import importlib
import pickle
import traceback
from typing import Any, List, NamedTuple, Optional, Type

from allennlp_parallel_predict.common.errors import PredictionError, shortened

_MAX_MESSAGE = 100_000
"""Characters of a message or traceback: an error may quote a whole input, or a tensor."""
_MAX_PICKLED = 1 << 20


class RemoteTraceback(Exception):
    """The traceback of a worker, as the `__cause__` of the exception raised here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class RemoteError(NamedTuple):
    """An exception on its way between processes."""

    module: str
    qualname: str
    message: str
    traceback: str
    pickled: Optional[bytes]
    """The exception itself, where pickle can rebuild it."""
    state: Optional[bytes]
    """Its pickled `(args, __dict__)`, where it cannot: many an `__init__` takes other arguments."""

    @property
    def type_name(self) -> str:
        return self.qualname if self.module == "builtins" else f"{self.module}.{self.qualname}"

    @classmethod
    def of(cls, error: BaseException) -> "RemoteError":
        return cls(
            type(error).__module__,
            type(error).__qualname__,
            shortened(_message_of(error), _MAX_MESSAGE),
            shortened(_traceback_of(error), _MAX_MESSAGE),
            _pickled_if_it_survives(error),
            _pickled((error.args, error.__dict__)),
        )

    def rebuild(self, where: str = "") -> BaseException:
        """
        The exception, of its own type, with the remote traceback as its cause.

        # Parameters

        where : `str`, optional (default = `""`)
            A sentence put before the remote traceback, such as the input line it concerns.
        """
        error = self._rebuild()
        error.__cause__ = RemoteTraceback(f"{where}\n{self.traceback}" if where else self.traceback)
        return error

    def _rebuild(self) -> BaseException:
        error = _loaded(self.pickled)
        if isinstance(error, BaseException):
            return error
        error_type: Any = _find_exception_type(self.module, self.qualname)
        args, attributes = _loaded(self.state) or ((self.message,), {})
        try:
            error = error_type.__new__(error_type, *args)
            error.args = args
            error.__dict__.update(attributes)
            assert isinstance(error, BaseException)
            return error
        except BaseException:  # there is no such type here, or it is not made in this way
            return PredictionError(f"{self.type_name}: {self.message}")


# What an exception's own methods raise must not take the place of the error that is reported, not
# even a `SystemExit`: it would end a worker, or the thread that hands out results.


def _message_of(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as another:
        return f"(its message cannot be shown: __str__ raises {type(another).__name__})"


def _traceback_of(error: BaseException) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except BaseException:
        frames = "".join(traceback.format_tb(error.__traceback__))
        return f"{frames}{type(error).__qualname__}: {_message_of(error)}\n"


def _pickled(value: Any) -> Optional[bytes]:
    try:
        pickled = pickle.dumps(value)
    except BaseException:
        return None
    return pickled if len(pickled) <= _MAX_PICKLED else None


def _loaded(pickled: Optional[bytes]) -> Any:
    try:
        return pickle.loads(pickled) if pickled is not None else None
    except BaseException:
        return None


def _pickled_if_it_survives(error: BaseException) -> Optional[bytes]:
    pickled = _pickled(error)
    return pickled if type(_loaded(pickled)) is type(error) else None


def _find_exception_type(module: str, qualname: str) -> Optional[Type[BaseException]]:
    """
    A class by name, also one that is defined inside a function and so cannot be imported:
    every exception class alive is in the tree below `BaseException`.
    """
    try:
        found: Any = importlib.import_module(module)
        for name in qualname.split("."):
            found = getattr(found, name)
        if isinstance(found, type) and issubclass(found, BaseException):
            return found
    except BaseException:  # also of a module that is imported here for the first time
        pass
    to_visit: List[Type[BaseException]] = [BaseException]
    while to_visit:
        error_type = to_visit.pop()
        if (error_type.__module__, error_type.__qualname__) == (module, qualname):
            return error_type
        to_visit.extend(error_type.__subclasses__())
    return None
