"""The classes of docs/extend.md, defined and used as a reader would."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running import leftover_children

ROOT = Path(__file__).parent.parent.parent
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/extend.md").read_text(), re.M | re.S)
pytestmark = pytest.mark.timeout(120)
SETTINGS = {"executor": "one_process", "batching": {"type": "by_size", "max_characters": 60}}


def test_the_examples_work(monkeypatch):
    monkeypatch.chdir(ROOT)
    printed = io.StringIO()
    names: dict = {"__name__": "docs"}
    with contextlib.redirect_stdout(printed):
        for number, block in enumerate(BLOCKS):
            exec(compile(block, f"example {number} of docs/extend.md", "exec"), names)
    lines = printed.getvalue().splitlines()
    assert lines[0] == "15 ['G', 'UH', 'D']"
    assert lines[1].startswith("[['HH', ") and lines[1].count("[") == 3
    assert len(BLOCKS) == 4
    assert leftover_children() == []


def test_the_command_uses_them(tmp_path):
    (tmp_path / "my_package.py").write_text(BLOCKS[0] + BLOCKS[1])
    words = (ROOT / "examples/g2p/words.jsonl").read_text().splitlines()[:20]
    (tmp_path / "words.jsonl").write_text("\n".join(words))
    run = subprocess.run(
        [sys.executable, "-m", "allennlp_parallel_predict"]
        + [str(ROOT / "examples/g2p/model.tar.gz"), "words.jsonl", "--output-file", "out.jsonl"]
        + ["--include-package", "my_package", "--parallel-overrides", json.dumps(SETTINGS)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    assert run.returncode == 0, run.stderr
    assert "one forked process" in run.stderr
    outputs = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [output["predicted_tokens"][0][0][:1] for output in outputs[:2]] == ["A", "A"]
    assert len(outputs) == 20 and run.stdout.count("prediction: ") == 20
