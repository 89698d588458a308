"""
Lets the workers do what is expensive about a dataset reader: `text_to_instance`.

While the parent reads, a call of `text_to_instance` only records its arguments, and a worker makes
the call. The parent's reader gets a `LazyInstance` that makes the call there and then should
anybody look into it, so `_read` may do with it what it likes. Only what a reader does with the
identity of the result cannot be kept: readers that return `None` for some inputs are left alone.
"""

import ast
import inspect
import pickle
import textwrap
from contextlib import contextmanager
from typing import Any, Iterator, List, MutableMapping, NamedTuple, Optional, Sequence

from allennlp.data import DatasetReader, Field, Instance


class DeferredCall(NamedTuple):
    """The arguments of `text_to_instance`, on their way to a worker."""

    pickled: bytes

    def make(self, reader: DatasetReader) -> Instance:
        """
        Makes the call.

        # Raises

        `TypeError`
            If it gives no `Instance`: then the reader could not be read this way.
        """
        args, kwargs = pickle.loads(self.pickled)
        # The class's method: the parent's own reader has one that records calls.
        instance = type(reader).text_to_instance(reader, *args, **kwargs)
        if not isinstance(instance, Instance):
            raise TypeError(
                f"{type(reader).__name__}.text_to_instance returned {instance!r}: annotate it as "
                "returning Optional[Instance], so that it runs where the file is read"
            )
        return instance


class LazyInstance(Instance):
    """An instance that is made when somebody looks at it, or else by a worker."""

    __slots__ = ["_call", "_reader", "_made"]

    def __init__(self, call: DeferredCall, reader: DatasetReader) -> None:
        self._call = call
        self._reader = reader
        self._made: Optional[Instance] = None

    @property
    def fields(self) -> MutableMapping[str, "Field[Any]"]:  # type: ignore[override]
        return self._make().fields

    @property
    def indexed(self) -> bool:
        return self._make().indexed

    @indexed.setter
    def indexed(self, value: bool) -> None:
        self._make().indexed = value

    def _make(self) -> Instance:
        if self._made is None:
            self._made = self._call.make(self._reader)
        return self._made

    def travelling(self) -> Any:
        """What a worker is sent: the call, or the instance if somebody has looked at it."""
        return self._call if self._made is None else self._made


@contextmanager
def deferring(reader: DatasetReader) -> Iterator[None]:
    """Makes a reader's `text_to_instance` record its calls, if nothing would be lost by it."""
    if not can_be_deferred(reader):
        yield
        return

    def record(*args: Any, **kwargs: Any) -> Instance:
        try:
            # Pickled now: the reader may use the same list for its next instance.
            call = DeferredCall(pickle.dumps((args, kwargs), pickle.HIGHEST_PROTOCOL))
        except Exception:
            return type(reader).text_to_instance(reader, *args, **kwargs)
        return LazyInstance(call, reader)

    reader.text_to_instance = record  # type: ignore[method-assign]
    try:
        yield
    finally:
        del reader.text_to_instance


def can_be_deferred(reader: DatasetReader) -> bool:
    """Whether `text_to_instance` always returns an instance, as far as its source shows."""
    if "text_to_instance" in vars(reader):
        return False
    return _always_gives_an_instance(
        [owner for owner in type(reader).__mro__ if "text_to_instance" in vars(owner)]
    )


def _always_gives_an_instance(owners: Sequence[type]) -> bool:
    """Of the first of some classes, each of which may call the next one's method as `super()`'s."""
    method = vars(owners[0])["text_to_instance"]
    # A static or class method would get the reader as its first argument (`DeferredCall.make`).
    if owners[0] is DatasetReader or not inspect.isfunction(method):
        return False
    if inspect.signature(method).return_annotation not in (Instance, "Instance"):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(method)))
    except (OSError, TypeError, SyntaxError):
        return False
    function = tree.body[0]
    assert isinstance(function, ast.FunctionDef)
    returns = [node.value for node in ast.walk(function) if isinstance(node, ast.Return)]
    return _always_leaves(function.body) and all(
        isinstance(value, ast.Name)
        or _is_instance_call(value)
        or (_is_call_of_super(value) and _always_gives_an_instance(owners[1:]))
        for value in returns
    )


def _always_leaves(body: List[ast.stmt]) -> bool:
    """Whether a block cannot be left by its end, which would return `None`."""
    last = body[-1]
    if isinstance(last, ast.If):
        return bool(last.orelse) and _always_leaves(last.body) and _always_leaves(last.orelse)
    return isinstance(last, (ast.Return, ast.Raise))


def _is_instance_call(node: Optional[ast.AST]) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == Instance.__name__
    )


def _is_call_of_super(node: Optional[ast.AST]) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "text_to_instance"
        and isinstance(node.func.value, ast.Call)
        and isinstance(node.func.value.func, ast.Name)
        and node.func.value.func.id == "super"
    )
