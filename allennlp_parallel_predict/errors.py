"""
What can go wrong, as exceptions, and how they reach a person:

    ParallelPredictError
    ├── SettingsError      (also a ConfigurationError) a setting that cannot be
    ├── ResumeError        (also a ConfigurationError) a checkpoint that does not fit this run
    ├── TooManyErrors      more failed inputs than `max_errors`
    ├── PredictionError    a model's failure whose own exception type cannot be rebuilt here
    ├── ModelStateError    a model that changes itself was run in several workers
    ├── PredictorClosed    a call to a `ParallelPredictor` or `AsyncPredictor` that is closed
    ├── QueueFull          more inputs wait than `max_waiting`
    └── WorkerError
        ├── WorkerDied     a worker process ended while it held a batch
        └── WorkerTimeout  a worker process was over `batch_timeout`

Exceptions that `allennlp predict` would raise keep their type. One that is a mistake of the user's
carries an explanation (see `explain`), and the command prints that instead of a traceback.
"""

import importlib
import pickle
import sys
import traceback
from contextlib import contextmanager
from typing import Any, Iterator, NamedTuple, Optional, Type, TypeVar

from allennlp.common.checks import ConfigurationError

E = TypeVar("E", bound=BaseException)


class ParallelPredictError(Exception):
    """The base class of this package's exceptions."""


class _ExplainedError(ParallelPredictError):
    """An error whose message says all there is to say: its traceback would tell a user nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        explain(self, message)


class SettingsError(_ExplainedError, ConfigurationError):
    """A setting that does not exist or has a value that it cannot have."""


class ResumeError(SettingsError):
    """A checkpoint that is damaged or belongs to another run."""


class PredictionError(ParallelPredictError):
    """A failure in a worker whose own exception type does not exist in this process."""


class TooManyErrors(_ExplainedError):
    """More inputs failed than `max_errors` allows."""


class ModelStateError(_ExplainedError):
    """A model that changes itself while it predicts was run in several workers."""


class PredictorClosed(ParallelPredictError):
    """A call to a predictor that has been closed, or was while the call waited."""


class QueueFull(ParallelPredictError):
    """As many inputs wait for a worker as `max_waiting` allows."""


class WorkerError(_ExplainedError):
    """A worker process failed, rather than the code that it ran."""


class WorkerDied(WorkerError):
    """A worker process ended while it held a batch."""


class WorkerTimeout(WorkerError):
    """A worker process took longer than `batch_timeout` and was ended."""


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
            str(error),
            "".join(traceback.format_exception(type(error), error, error.__traceback__)),
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
        if error is not None:
            return error
        error_type: Any = _find_exception_type(self.module, self.qualname)
        args, attributes = _loaded(self.state) or ((self.message,), {})
        try:
            error = error_type.__new__(error_type, *args)
            error.args = args
            error.__dict__.update(attributes)
            return error
        except Exception:  # there is no such type here, or it is not made in this way
            return PredictionError(f"{self.type_name}: {self.message}")


def _pickled(value: Any) -> Optional[bytes]:
    try:
        return pickle.dumps(value)
    except Exception:
        return None


def _loaded(pickled: Optional[bytes]) -> Any:
    try:
        return pickle.loads(pickled) if pickled is not None else None
    except Exception:
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
        return found
    except (ImportError, AttributeError):
        pass
    to_visit = [BaseException]
    while to_visit:
        error_type = to_visit.pop()
        if (error_type.__module__, error_type.__qualname__) == (module, qualname):
            return error_type
        to_visit.extend(error_type.__subclasses__())
    return None


def explain(error: E, explanation: str) -> E:
    """Marks `error` as a mistake of the user's and says, for a person, what it is about."""
    error.explanation = explanation  # type: ignore[attr-defined]
    return error


@contextmanager
def explained(what: str, *types: Type[BaseException]) -> Iterator[None]:
    """
    Explains the errors of some types that are raised inside.

    # Examples

    ```python
    with explained("cannot read the input file", OSError):
        open(path)
    ```
    """
    try:
        yield
    except types as error:
        if not hasattr(error, "explanation"):
            explain(error, f"{what}: {error or type(error).__name__}")
        raise


@contextmanager
def printed_for_people(prog: str) -> Iterator[None]:
    """
    Lets an explained exception leave as it is, for callers of `main()`, but makes the interpreter
    print its explanation in place of a traceback if nobody catches it.
    """
    try:
        yield
    except BaseException as error:
        if hasattr(error, "explanation"):
            sys.excepthook = _explaining_hook(prog, error, sys.excepthook)
        raise


def _explaining_hook(prog: str, explained_error: BaseException, other_hook: Any) -> Any:
    def hook(error_type: Any, error: BaseException, error_traceback: Any) -> None:
        if error is explained_error:
            print(f"{prog}: error: {error.explanation}", file=sys.stderr)  # type: ignore
        else:
            other_hook(error_type, error, error_traceback)

    return hook
