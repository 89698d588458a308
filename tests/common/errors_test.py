"""The tree of exceptions is what its drawing says."""

import ast
import builtins
import re
from pathlib import Path

from allennlp.common.checks import ConfigurationError

from allennlp_parallel_predict.common import errors
from allennlp_parallel_predict.common.remote_errors import RemoteTraceback


def drawn_parents():
    """The parent of each exception in the drawing of the module's docstring."""
    parents, path = {}, []
    for line in errors.__doc__.splitlines():
        match = re.match(r"    ((?:[│ ]   )*)(?:[├└]── )(\w+)", line)
        if match:
            del path[len(match[1]) // 4 + 1 :]
            parents[match[2]] = path[-1]
            path.append(match[2])
        elif line == "    BaseException":
            path.append("BaseException")
    return parents


def test_the_drawing_of_the_tree_is_true():
    drawn = drawn_parents()
    known = {**vars(builtins), **vars(errors), "RemoteTraceback": RemoteTraceback}
    assert drawn.pop("Exception") == "BaseException" and len(drawn) > 12
    for name, parent in drawn.items():
        assert known[name].__bases__[0].__name__ == parent, name
    also = re.findall(r"(\w+) +\(also a ConfigurationError\)", errors.__doc__)
    assert {*also} == {name for name in drawn if ConfigurationError in known[name].__bases__}


def test_the_drawing_has_every_exception_of_the_package():
    package = Path(errors.__file__).parent.parent
    bases = {*drawn_parents(), "BaseException", "ConfigurationError"}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                if bases & {base.id for base in node.bases if isinstance(base, ast.Name)}:
                    assert node.name in bases, f"{path}: {node.name}"
