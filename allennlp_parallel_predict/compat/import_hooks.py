"""Runs code around the import of modules that may never be imported."""

import functools
import sys
from contextlib import ExitStack
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any, Callable, ContextManager, Dict, List

# Entered before the code of the module runs, and left when it has run.
Hook = Callable[[ModuleType], ContextManager[None]]


class _HookFinder(MetaPathFinder):
    """Finds what the other finders find, and has the module executed between its hooks."""

    def __init__(self) -> None:
        self.hooks: Dict[str, List[Hook]] = {}

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        if fullname not in self.hooks:
            return None
        for finder in sys.meta_path:
            find_spec = getattr(finder, "find_spec", None)
            spec = find_spec(fullname, path, target) if find_spec and finder is not self else None
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    # On the instance: a loader of another class would lack what is asked of this
                    # one later, such as the source for a traceback.
                    spec.loader.exec_module = functools.partial(
                        self._execute, fullname, spec.loader.exec_module
                    )
                return spec
        return None

    def _execute(
        self, name: str, execute: Callable[[ModuleType], None], module: ModuleType
    ) -> None:
        with ExitStack() as stack:
            for hook in self.hooks[name]:
                stack.enter_context(hook(module))
            execute(module)


_finder = _HookFinder()


def register(name: str, hook: Hook) -> None:
    """Runs `hook` around the import of the module `name`, or now if that is imported already."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    hooks = _finder.hooks.setdefault(name, [])
    if hook not in hooks:
        hooks.append(hook)
        if name in sys.modules:
            with hook(sys.modules[name]):
                pass
