import contextlib
import inspect
import sys
from types import ModuleType
from typing import Iterator, List

import pytest

from allennlp_parallel_predict.compat import import_hooks


@pytest.fixture
def events(tmp_path, monkeypatch) -> Iterator[List[str]]:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "hooked.py").write_text("import builtins\nbuiltins.hook_events.append('run')\n")
    events: List[str] = []
    monkeypatch.setattr("builtins.hook_events", events, raising=False)
    yield events
    sys.modules.pop("hooked", None)
    import_hooks._finder.hooks.pop("hooked", None)


def test_runs_around_the_import_and_only_once(events):
    @contextlib.contextmanager
    def hook(module: ModuleType) -> Iterator[None]:
        events.append(f"before {module.__name__}")
        yield
        events.append("after")

    import_hooks.register("hooked", hook)
    import_hooks.register("hooked", hook)
    assert events == []
    import hooked

    assert events == ["before hooked", "run", "after"]
    assert inspect.getsource(hooked).startswith("import builtins")
    import_hooks.register("hooked", hook)
    assert len(events) == 3


def test_runs_at_once_where_the_module_is_imported_already(events):
    import hooked  # noqa: F401

    @contextlib.contextmanager
    def hook(module: ModuleType) -> Iterator[None]:
        yield
        events.append(module.__name__)

    import_hooks.register("hooked", hook)
    assert events == ["run", "hooked"]


def test_leaves_a_missing_module_missing(events):
    import_hooks.register("hooked.nothing", contextlib.nullcontext)
    with pytest.raises(ModuleNotFoundError, match="hooked.nothing"):
        import hooked.nothing  # noqa: F401


def test_the_hook_ends_when_the_import_fails(events, tmp_path):
    (tmp_path / "hooked.py").write_text("1 / 0")

    @contextlib.contextmanager
    def hook(module: ModuleType) -> Iterator[None]:
        try:
            yield
        finally:
            events.append("ended")

    import_hooks.register("hooked", hook)
    with pytest.raises(ZeroDivisionError):
        import hooked  # noqa: F401
    assert events == ["ended"]
