"""The examples that are scripts, run as a reader would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.timeout(300)
def test_files(tmp_path):
    """All ways of reading and writing the same words."""
    script = tmp_path / "bin/allennlp-parallel-predict"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m allennlp_parallel_predict "$@"\n')
    script.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{script.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "ALLENNLP_LOG_LEVEL": "ERROR",
    }
    (tmp_path / "out").mkdir()
    command = ["bash", ROOT / "examples/files.sh", tmp_path / "out"]
    ran = subprocess.run(command, env=environment, stdout=-1, stderr=-1, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == ["40", "39", "80", "40", "40"]
