"""How an error that has an explanation is printed: in one line, without a traceback."""

import sys
from contextlib import contextmanager
from typing import Any, Iterator


@contextmanager
def print_user_errors(prog: str) -> Iterator[None]:
    """
    Lets an exception with an explanation pass, for callers of `main()`, but makes the interpreter
    print the explanation in place of a traceback if nobody catches it.
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
