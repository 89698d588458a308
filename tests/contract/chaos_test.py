"""The short form of `benchmarks/chaos.py`, which is described there."""

import subprocess
import sys
from pathlib import Path

import pytest

CHAOS = Path(__file__).parent.parent.parent / "benchmarks" / "chaos.py"


@pytest.mark.timeout(280)
def test_nothing_is_lost():
    run = subprocess.run(
        [sys.executable, "-W", "ignore", str(CHAOS), "--short"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=270,
    )
    text = run.stdout.decode(errors="replace")
    assert run.returncode == 0, text[-5000:]
    assert "PROBLEM" not in text and "survived" in text
    for fault in ("a worker is killed", "a worker is slowed", "the parent is killed", "oversized"):
        assert fault in text
