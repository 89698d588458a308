"""
What can go wrong, as exceptions, and how they reach a person:

    BaseException
    ├── Interrupted                Ctrl-C or SIGTERM ended the run
    └── Exception
        ├── RemoteTraceback        the worker's traceback, as the cause of an exception raised here
        └── ParallelPredictError
            ├── ExplainedError     its message is enough: the command prints no traceback
            │   ├── SettingsError  (also a ConfigurationError) a setting that cannot be
            │   │   └── ResumeError    a checkpoint or list of errors that does not fit
            │   ├── JoinError      an input or output without what is to be joined
            │   ├── TooManyErrors  more failed inputs than `max_errors`
            │   ├── ModelStateError    a model that changes itself was run in several workers
            │   ├── OutputChanged  something else has written to the output during the run
            │   └── WorkerError
            │       ├── WorkerDied     a worker process ended while it held a batch
            │       └── WorkerTimeout  a worker process was over `batch_timeout`
            ├── ArchiveError       (also a ConfigurationError) a damaged or unsafe archive
            ├── OutputClosed       nobody reads the output any more, as after `| head`
            ├── PredictionError    a failure whose own exception type cannot be rebuilt here
            ├── PredictorClosed    a call to a predictor that is closed
            └── QueueFull          more inputs wait than `max_waiting`

Exceptions that `allennlp predict` would raise keep their type. One that is a mistake of the user's
carries an explanation (see `explain`), and the command prints that instead of a traceback.
"""

import signal
from contextlib import contextmanager
from typing import Iterator, Optional, Type, TypeVar

from allennlp.common.checks import ConfigurationError

E = TypeVar("E", bound=BaseException)


class ParallelPredictError(Exception):
    """The base class of this package's exceptions."""


class ExplainedError(ParallelPredictError):
    """An error whose message says all there is to say: its traceback would tell a user nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        explain(self, message)


class SettingsError(ExplainedError, ConfigurationError):
    """A setting that does not exist or has a value that it cannot have."""


def check_at_least(minimum: int, section: str = "", **values: Optional[float]) -> None:
    """Raises a `SettingsError` for settings of a section, such as `"executor."`, out of range."""
    for key, value in values.items():
        if value is not None and value < minimum:
            raise SettingsError(f"{section}{key} must be at least {minimum}, but it is {value}")


class ResumeError(SettingsError):
    """A checkpoint, or a list of errors, that is damaged or belongs to another run."""


class JoinError(ExplainedError):
    """An input or output that lacks what `--id-field` or `--output-fields` names, for example."""


class PredictionError(ParallelPredictError):
    """A failure in a worker whose own exception type does not exist in this process."""


class TooManyErrors(ExplainedError):
    """More inputs failed than `max_errors` allows."""


class ModelStateError(ExplainedError):
    """A model that changes itself while it predicts was run in several workers."""

    @classmethod
    def of(cls, change: str, consequence: str) -> "ModelStateError":
        """About what was seen to change, and what follows from it."""
        return cls(
            f"what this model predicts depends on the batches that it saw before ({change}), "
            f"{consequence}"
        )


class PredictorClosed(ParallelPredictError):
    """A call to a predictor that has been closed, or was while the call waited."""


class QueueFull(ParallelPredictError):
    """As many inputs wait for a worker as `max_waiting` allows."""


class OutputClosed(ParallelPredictError):
    """Nobody reads the output any more, as after `| head`."""


class OutputChanged(ExplainedError):
    """Something else has written to the output during the run."""


class ArchiveError(ParallelPredictError, ConfigurationError):
    """An archive that is damaged, incomplete, or would do what loading a model must not do."""


class Interrupted(BaseException):
    """
    The user or the system asks the run to end.

    # Parameters

    number : `int`
        The signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number
        self.message = "interrupted"
        """What to tell the user."""


class WorkerError(ExplainedError):
    """A worker process failed, rather than the code that it ran."""


class WorkerDied(WorkerError):
    """A worker process ended while it held a batch."""


class WorkerTimeout(WorkerError):
    """A worker process took longer than `batch_timeout` and was ended."""


def explain(error: E, explanation: str) -> E:
    """Marks `error` as a mistake of the user's and says, for a person, what it is about."""
    error.explanation = explanation  # type: ignore[attr-defined]
    return error


@contextmanager
def user_error_context(what: str, *types: Type[BaseException]) -> Iterator[None]:
    """
    Explains the errors of some types that are raised inside.

    # Examples

    ```python
    with user_error_context("cannot read the input file", OSError):
        open(path)
    ```
    """
    try:
        yield
    except types as error:
        if not hasattr(error, "explanation"):
            explain(error, f"{what}: {error or type(error).__name__}")
        raise


def shortened(text: str, limit: int) -> str:
    """Text of at most about `limit` characters: what is too long keeps its two ends."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} [... {len(text) - 2 * half:,} characters ...] {text[-half:]}"


def shown(text: str, limit: int = 200) -> str:
    """Text of unknown origin for a terminal: shortened, and without control characters."""
    if len(text) > limit:
        text = text[:limit] + "..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
