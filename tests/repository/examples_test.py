"""The examples that are scripts, run as a reader would."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def run(name, tmp_path):
    """What an example prints, in words."""
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
    command = ["bash", ROOT / "examples" / name, tmp_path / "out"]
    ran = subprocess.run(command, env=environment, stdout=-1, stderr=-1, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split()


@pytest.mark.timeout(300)
def test_files(tmp_path):
    """All ways of reading and writing the same words."""
    assert run("files.sh", tmp_path) == ["40", "39", "80", "40", "40", "40"]


@pytest.mark.timeout(300)
def test_monitoring(tmp_path):
    pytest.importorskip("prometheus_client")
    assert run("monitoring.sh", tmp_path) == ['"lines":', "40", '"done":', "40"]
