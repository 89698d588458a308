"""What the garbage collector looks at, and that nothing is lost by what it does not."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from allennlp_parallel_predict import garbage
from allennlp_parallel_predict.garbage import imports_spared

pytestmark = pytest.mark.timeout(60)

PROCESS = """
import atexit, gc, runpy, sys
imports_spared = runpy.run_path(sys.argv[1])["imports_spared"]
atexit.register(lambda: print(gc.get_freeze_count() > 0))
try:
    with imports_spared():
        print(gc.get_freeze_count() > 0)
        if sys.argv[2] == "fails":
            raise KeyError
except KeyError:
    pass
print(gc.get_freeze_count() > 0)
"""


@pytest.mark.parametrize("how, at_exit", [("ends well", "True"), ("fails", "False")])
def test_imports_are_spared_during_a_run_and_at_the_end_of_its_process(how, at_exit):
    command = [sys.executable, "-c", PROCESS, garbage.__file__, how]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.split() == ["True", "False", at_exit]


class Log:
    """Its last line is written when the garbage collector has found it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.itself = self

    def __del__(self) -> None:
        self.path.write_text("the last line")


def test_what_a_run_leaves_is_collected_at_its_end(tmp_path):
    gc.disable()
    try:
        with imports_spared():
            Log(tmp_path / "log")
        assert (tmp_path / "log").read_text() == "the last line"
    finally:
        gc.enable()
