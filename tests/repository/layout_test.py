"""Tests lie as the package does: each module has a test of its name, in the folder of its name."""

from pathlib import Path

import pytest

from allennlp_parallel_predict import compat

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "allennlp_parallel_predict"
WITHOUT = {
    "__main__.py": "a command line; doctor_test, flags_test and readme_test run it",
    "__init__.py": "imports; exports_test tests what they export",
    # One test runs each of them in a process of its own, with and without the shim.
    **{
        f"compat/{shim}.py": "shims_test, which checks that it has them all"
        for shim in compat.SHIMS
    },
}
"""Modules by name or path, and what tests them instead."""


def modules():
    return sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("module", [m for m in modules() if m.rpartition("/")[2] not in WITHOUT])
def test_a_module_has_a_test_of_its_name(module):
    test = ROOT / "tests" / module.replace(".py", "_test.py")
    assert test.exists() != (module in WITHOUT)


def test_every_exception_is_a_module():
    names = {*modules(), *(module.rpartition("/")[2] for module in modules())}
    assert set(WITHOUT) <= names
