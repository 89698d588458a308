"""`--quiet`, in a process whose logging AllenNLP sets up."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from allennlp_parallel_predict.common.logs import only_warnings

ROOT = Path(__file__).parent.parent.parent
MODEL = ROOT / "examples/g2p/model.tar.gz"


def run(folder, *flags):
    (folder / "in").write_text('{"source": "hello"}\n{"source": 3}\n')
    arguments = [str(MODEL), str(folder / "in"), "--on-error", "skip", *flags]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("ALLENNLP_")}
    ran = subprocess.run(
        [sys.executable, "-m", "allennlp_parallel_predict", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )
    assert ran.returncode == 3, ran.stderr
    logged = [line.split(" - ")[1:3] for line in ran.stderr.splitlines() if " - " in line]
    return ran.stdout, ran.stderr.splitlines()[-1], logged


@pytest.mark.timeout(150)
def test_only_warnings_are_left(tmp_path):
    stdout, last, logged = run(tmp_path)
    assert len([level for level, _ in logged if level == "INFO"]) > 90
    for flags in (["--quiet"], ["--quiet", "--progress", "never"]):
        quiet_stdout, quiet_last, quiet_logged = run(tmp_path, *flags)
        assert quiet_stdout == stdout and '"predicted_tokens"' in stdout
        warnings = [line for line in logged if line[0] != "INFO"]
        assert ["WARNING", "allennlp_parallel_predict.data.sinks"] in warnings
        assert quiet_logged == warnings
        has_end = quiet_last.startswith("parallel-predict: 2 lines in ")
        assert has_end == (flags == ["--quiet"]), quiet_last
    assert last.startswith("parallel-predict: 2 lines in ")


def test_it_is_as_before_afterwards():
    for is_wanted in (False, True):
        with only_warnings(is_wanted):
            assert logging.getLogger("any").isEnabledFor(logging.WARNING)
            assert logging.root.manager.disable == is_wanted * logging.INFO
        assert logging.root.manager.disable == 0
