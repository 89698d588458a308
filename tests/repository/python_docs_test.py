"""The examples of docs/python.md, run one after another as a reader would."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/python.md").read_text(), re.M | re.S)


@pytest.mark.timeout(120)
def test_the_examples_work(monkeypatch):
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    names: dict = {"__name__": "docs"}
    with contextlib.redirect_stdout(printed):
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"example {number} of docs/python.md", "exec"), names)
    assert printed.getvalue().startswith("['HH', 'EH', 'L', 'OW']\n")
    assert "KeyError('source')" in printed.getvalue()
    assert "in predict_json" in printed.getvalue()  # the remote traceback
    assert "too slow" in printed.getvalue()
    assert len(names["first"]) == 100 and len(names["outputs"]) == 3
    assert len(BLOCKS) == 7
