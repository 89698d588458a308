"""What the doctor does about what it finds is real."""

import os
import subprocess
import sys
from pathlib import Path

DOCTOR = """
import sys
from allennlp_parallel_predict.doctor import main
status = main(sys.argv[1:])
assert not {"torch", "allennlp"} & set(sys.modules)
sys.exit(status)
"""


def test_fixes_what_is_safe(tmp_path) -> None:
    """In an environment of scripts/bootstrap.py, that is the plugins file alone."""
    done = subprocess.run(
        [sys.executable, "-c", DOCTOR, "--fix"],
        cwd=tmp_path,
        env=dict(os.environ, HOME=str(tmp_path)),
        stdout=subprocess.PIPE,
        universal_newlines=True,
    )
    assert done.returncode == 0, done.stdout
    assert "  fixed\n" in done.stdout and "no problems left" in done.stdout
    assert (Path(tmp_path) / ".allennlp" / "plugins").read_text() == "allennlp_parallel_predict\n"
