import subprocess
import sys
import threading

import pytest

from allennlp_parallel_predict.compat import lazy_imports

INSTALL = """
import sys, warnings
warnings.filterwarnings("ignore")
from allennlp_parallel_predict.compat import lazy_imports

def is_pending(name):
    return "__lazy__" in vars(sys.modules[name])
"""


def run(code: str) -> str:
    """Runs code in an interpreter of its own, which has imported nothing of AllenNLP."""
    command = [sys.executable, "-c", INSTALL + code]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_allennlp_is_imported_without_what_prediction_never_needs():
    output = run(
        """
import allennlp.commands
from allennlp.common.plugins import import_plugins
import_plugins()
import allennlp_models.structured_prediction

print([name for name in lazy_imports.LATE if name in sys.modules and not is_pending(name)])
print([name for name in ("pandas", "sklearn.base", "scipy.linalg") if name in sys.modules])
"""
    )
    assert output.splitlines()[-2:] == ["[]", "[]"]


def test_what_was_put_off_works_when_it_is_called():
    output = run(
        """
from allennlp.fairness.fairness_metrics import wasserstein_distance
from allennlp_models.structured_prediction.models.constituency_parser import Tree

assert isinstance(Tree, lazy_imports.Deferred) and not isinstance("text", Tree)
assert is_pending("nltk") and is_pending("scipy.stats")
tree = Tree("S", ["text"])
assert not is_pending("nltk") and isinstance(tree, Tree)
assert Tree.fromstring("(S text)") == tree
class Own(Tree):
    pass

assert issubclass(Own, type(tree))
print(wasserstein_distance([0, 1], [1, 2]), is_pending("scipy.stats"))
"""
    )
    assert output.splitlines()[-1] == "1.0 False"


def test_everybody_else_gets_the_real_thing():
    output = run(
        """
import importlib.util
import scipy.stats

assert importlib.util.find_spec("sklearn") is not None
assert is_pending("scipy.stats")
from scipy.stats import spearmanr
import sklearn.utils  # which is not put off, and needs its package
from sklearn.metrics import f1_score
import scipy.stats as again

assert again is scipy.stats and type(scipy.stats) is type(sys)
assert not isinstance(spearmanr, lazy_imports.Deferred)
assert scipy.stats.__loader__ is scipy.stats.__spec__.loader
assert "norm" in dir(scipy.stats)
print(f1_score([1, 0], [1, 0]), scipy.__version__ == __import__("scipy").__version__)
"""
    )
    assert output.split() == ["1.0", "True"]


def test_torch_compile_finds_what_was_noted_before_there_was_dynamo():
    pytest.importorskip("torch._dynamo")
    output = run(
        """
import allennlp.commands
import torch
from transformers import PreTrainedModel

assert is_pending("torch._dynamo")
print(torch.compile(lambda x: x + 1, backend="eager")(torch.ones(2)).tolist())
assert not is_pending("torch._dynamo")
"""
    )
    assert output.splitlines()[-1] == "[2.0, 2.0]"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that is run late, and counts how often."""
    folder = tmp_path / "late_package"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "import builtins, time\n"
        "builtins.late_package_runs = getattr(builtins, 'late_package_runs', 0) + 1\n"
        "time.sleep(0.2)\nfrom late_package.part import number\nvalue = number + 1\n"
    )
    (folder / "part.py").write_text("number = 41\n")
    (folder / "broken.py").write_text("raise ImportError('no such library')\n")
    finder = lazy_imports.LazyFinder(["late_package", "late_package.broken"])
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "late_package"]:
        del sys.modules[name]
    del __import__("builtins").late_package_runs


def test_a_module_is_run_once_whoever_asks_first(package):
    import builtins

    import late_package

    assert not hasattr(builtins, "late_package_runs")
    found = []
    threads = [threading.Thread(target=lambda: found.append(late_package.value)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [42] * 4 and builtins.late_package_runs == 1
    assert not hasattr(late_package, "nothing")


def test_a_module_that_is_not_put_off_runs_its_package_first(package):
    import builtins

    import late_package  # noqa: F401
    import late_package.part

    assert late_package.part.number == 41 and builtins.late_package_runs == 1


def test_an_error_comes_each_time_that_the_module_is_needed(package):
    builtins = __import__("builtins")
    import late_package.broken

    for _ in range(2):
        with pytest.raises(ImportError, match="no such library"):
            late_package.broken.anything
    assert builtins.late_package_runs == 1
