"""The nearest name that exists, for messages about one that does not."""

import difflib
import functools
import inspect
from typing import Any, Callable, Iterable, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """
    # Returns

    `str`
        `"; did you mean NEAREST?"`, or `"."` if no known name is near.

    # Examples

    ```python
    did_you_mean("num_worker", ["num_workers"])  # "; did you mean num_workers?"
    ```
    """
    by_last_part = {key.rpartition(".")[2]: key for key in known}
    last_part = name.rpartition(".")[2]
    nearest = [last_part] if last_part in by_last_part else []  # it exists in another section
    nearest += difflib.get_close_matches(name, by_last_part.values(), 1)
    nearest += difflib.get_close_matches(last_part, by_last_part, 1)
    return f"; did you mean {by_last_part.get(nearest[0], nearest[0])}?" if nearest else "."


def suggests_arguments(function: F) -> F:
    """
    Makes the `TypeError` for an unknown keyword argument name the nearest one that exists.
    Python does so itself from 3.13 on.
    """
    known = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in known:
                raise TypeError(
                    f"{function.__qualname__}() got an unexpected keyword argument "
                    f"{name!r}{did_you_mean(name, known)}"
                )
        return function(*args, **kwargs)

    return cast(F, checked)
