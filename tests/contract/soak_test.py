"""The short form of `tests/endurance/soak.py`, which is described there."""

import subprocess
import sys

import pytest

from tests.endurance.soak import COUNTED, MEASURED, grown


@pytest.mark.timeout(280)
def test_nothing_grows():
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.endurance.soak", "--seconds", "20"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=270,
    )
    text = ran.stdout.decode(errors="replace")
    assert ran.returncode == 0 and "GROWS" not in text, text[-5000:]
    assert all(what in text for what in (*COUNTED, *MEASURED)) and "rounds in 20 s" in text


CALM = {**dict.fromkeys(COUNTED, 7), **dict.fromkeys(MEASURED, 500 << 20)}


@pytest.mark.parametrize(
    "what, by", [*((c, 1) for c in COUNTED), *((m, 8 << 20) for m in MEASURED)]
)
def test_growth_is_noticed(what, by):
    """A leak of one file a round, or of 8 MB."""
    assert grown([CALM] * 20) == []
    assert (
        grown([{**CALM, what: CALM[what] + (n < 4)} for n in range(20)]) == []
    )  # while warming up
    (problem,) = grown([{**CALM, what: CALM[what] + n * by} for n in range(20)])
    assert problem.startswith(f"{what}: ")
