"""
Leaves out, until somebody asks for it, what AllenNLP's libraries import but prediction never needs.

Half of the CPU time of `import allennlp`, which every spawned worker pays too, is for a handful of
names: with torch 2, transformers imports scikit-learn (with pandas and scipy) for one function of
assisted generation, scipy for the loss of object detection, TorchDynamo for a decorator, and
AllenNLP nltk for annotations. So these modules are entered into `sys.modules` without being run,
and run as soon as anything is taken from them. Only the `BORROWERS`, while they are imported, get a
`Deferred` in place of what they take, which they call, or test instances against, much later or
never. Everybody else gets the real thing at the first attempt.
"""

import importlib.abc
import importlib.machinery
import sys
import threading
from functools import partial
from types import FrameType, ModuleType
from typing import Any, List, Optional, Sequence, Tuple

LATE = (
    "allennlp_models.rc.tools.narrativeqa",
    "h5py",
    "nltk",
    "nltk.corpus",
    "nltk.corpus.reader",
    "nltk.corpus.reader.bracket_parse",
    "nltk.tree",
    "scipy",
    "scipy.optimize",
    "scipy.stats",
    "sklearn",
    "sklearn.metrics",
    "torch._dynamo",
    "torch._dynamo._trace_wrapped_higher_order_op",
    "torch.distributed.tensor",
    "torch.nn.attention.flex_attention",
    "transformers.integrations.flex_attention",
    "transformers.integrations.tensor_parallel",
)
"""The modules that are run late. Each comes with the packages that it is in, or they are run."""
BORROWERS = ("allennlp", "allennlp_models", "transformers")
"""The packages whose code was read for what it does with these modules while it is imported."""
_DECORATORS = {("torch._dynamo", "allow_in_graph")}
"""Functions that return what they are given, and only note something about it."""
_CO_OPTIMIZED = 1
"""The flag of the code of functions, which a module's and a class's lack; see `inspect`."""


class LazyFinder(importlib.abc.MetaPathFinder):
    """
    Finds the modules that are run late, with the help of the finders that come after it.

    # Parameters

    names : `Sequence[str]`
        The full names of the modules.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = frozenset(names)

    def find_spec(
        self, fullname: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        """The module's own spec, with a loader that waits."""
        if fullname not in self._names:
            parent = sys.modules.get(fullname.rpartition(".")[0])
            if parent is None or not _is_pending(parent):
                return None
            _run(parent)  # its modules count on it
            found = sys.modules.get(fullname)
            return None if found is None else importlib.machinery.ModuleSpec(fullname, _Found())
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _LazyLoader(spec.loader)
        return spec


class _Found(importlib.abc.Loader):
    """For a module that has been imported by its package while it was looked for."""

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return sys.modules[spec.name]

    def exec_module(self, module: ModuleType) -> None:
        pass


class _LazyLoader(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # resources, source code, ...

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _LazyModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        assert isinstance(module, _LazyModule)
        vars(module)["__lazy__"] = _Pending(self._loader)


class _Pending:
    """What there is to do when a module is needed."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader
        self.lock = threading.RLock()
        self.is_running = False
        self.calls: List[Tuple[str, Any]] = []
        """Decorators that have been called before there were any, and with what."""


def _note_call(pending: _Pending, name: str, function: Any) -> Any:
    pending.calls.append((name, function))
    return function


class _LazyModule(ModuleType):
    """A module that is run when an attribute is asked for that it has not got yet."""

    def __getattr__(self, name: str) -> Any:
        pending: Optional[_Pending] = vars(self).get("__lazy__")
        if pending is not None and not pending.is_running:
            if not name.startswith("__") and _is_borrowed():
                if (self.__name__, name) in _DECORATORS:
                    return partial(_note_call, pending, name)
                return Deferred(self, name)
        if name in ("__path__", "__warningregistry__", "__wrapped__"):
            raise AttributeError(name)  # asked of every module, by `warnings` and `inspect`
        _run(self)
        return ModuleType.__getattribute__(self, name)

    def __dir__(self) -> List[str]:
        _run(self)
        return list(ModuleType.__dir__(self))


def _is_borrowed() -> bool:
    """Whether the code that asks for an attribute is that of a borrower which is being imported."""
    frame: Optional[FrameType] = sys._getframe(2)
    while frame is not None and "importlib" in frame.f_globals.get("__name__", ""):
        frame = frame.f_back
    if frame is None or frame.f_globals.get("__name__", "").split(".")[0] not in BORROWERS:
        return False
    return not frame.f_code.co_flags & _CO_OPTIMIZED


def _run(module: ModuleType) -> None:
    """Runs a module if that has not been done; in its own thread it may meet itself half done."""
    pending: Optional[_Pending] = vars(module).get("__lazy__")
    if pending is None:
        return
    parent = sys.modules.get(module.__name__.rpartition(".")[0])
    if parent is not None:
        _run(parent)
    with pending.lock:
        if "__lazy__" not in vars(module) or pending.is_running:
            return
        pending.is_running = True
        try:
            module.__loader__ = pending.loader
            if module.__spec__ is not None:
                module.__spec__.loader = pending.loader
            pending.loader.exec_module(module)
            del vars(module)["__lazy__"]
            module.__class__ = ModuleType
        finally:
            pending.is_running = False
    for name, function in pending.calls:
        getattr(module, name)(function)


class Deferred:
    """
    Something of a module that has not been run: it can be called, tested against, derived from and
    asked for attributes, all of which run the module; and put into annotations, which does not.

    # Parameters

    module : `ModuleType`
        The module.
    name : `str`
        What it is called there.
    """

    def __init__(self, module: ModuleType, name: str) -> None:
        self._module, self._name = module, name

    def _real(self) -> Any:
        return getattr(self._module, self._name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._real()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)  # annotations are looked at, by `typing` and `inspect`
        return getattr(self._real(), name)

    def __instancecheck__(self, instance: Any) -> bool:
        # As long as nobody has run the module there are no instances of its classes.
        return not _is_pending(self._module) and isinstance(instance, self._real())

    def __subclasscheck__(self, subclass: type) -> bool:
        return not _is_pending(self._module) and issubclass(subclass, self._real())

    def __mro_entries__(self, bases: Tuple[Any, ...]) -> Tuple[Any, ...]:
        return (self._real(),)

    def __mul__(self, other: Any) -> Any:
        return self._real() * other

    def __rfloordiv__(self, other: Any) -> Any:
        return other // self._real()

    def __reduce__(self) -> Tuple[Any, ...]:
        return getattr, (self._module, self._name)

    def __repr__(self) -> str:
        return f"<{self._module.__name__}.{self._name}, not imported yet>"


def _is_pending(module: ModuleType) -> bool:
    return "__lazy__" in vars(module)


def install() -> None:
    """
    Has the modules run late that have not been imported yet. It imports nothing itself, and may be
    called more than once; it has an effect on what is imported afterwards.
    """
    if not any(isinstance(finder, LazyFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, LazyFinder(LATE))
