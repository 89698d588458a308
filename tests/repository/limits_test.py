"""How large the code may be: a file, a function, the package, the benchmarks."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MOST_LINES_OF_A_FILE = 300
MOST_LINES_OF_A_FUNCTION = 45
MOST_LINES = {"allennlp_parallel_predict": 17_450, "benchmarks": 3_000}
"""An upper bound, to be lowered with the code."""


def files(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def lines(path):
    return len(path.read_text().splitlines())


@pytest.mark.parametrize("folder", MOST_LINES)
def test_a_folder(folder):
    assert 0 < sum(map(lines, files(folder))) <= MOST_LINES[folder]


@pytest.mark.parametrize("folder", MOST_LINES)
def test_each_file(folder):
    too_long = {str(path): lines(path) for path in files(folder)}
    assert {p: n for p, n in too_long.items() if n > MOST_LINES_OF_A_FILE} == {}


@pytest.mark.parametrize("folder", MOST_LINES)
def test_each_function(folder):
    too_long = {}
    for path in files(folder):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                size = node.end_lineno - node.lineno + 1
                if size > MOST_LINES_OF_A_FUNCTION:
                    too_long[f"{path}: {node.name}"] = size
    assert too_long == {}
