"""
The requirements can be installed from wheels on other processors too. Resolved by uv against the
package index; nothing is downloaded or built but metadata.
"""

import configparser
import os
import shutil
import subprocess
from pathlib import Path
from typing import List, Tuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = shutil.which("uv") or shutil.which(str(ROOT / ".uv" / "bin" / "uv"))
EXTRAS = ["models", "ray", "plot", "parquet", "zstd", "metrics"]
# These are Python alone, and have no wheel anywhere.
SOURCES = [
    "allennlp-parallel-predict",
    "fairscale",
    "pathtools",
    "promise",
    "termcolor",
    "word2number",
]
pytestmark = pytest.mark.skipif(UV is None, reason="needs uv")


CASES = [
    ("3.10", "aarch64-apple-darwin", [], "tokenizers==0.11.6"),
    # AllenNLP itself asks for jsonnet, which has no wheel there: it needs a C++ compiler.
    ("3.10", "aarch64-manylinux_2_28", ["jsonnet"], "tokenizers==0.12.1"),
    ("3.12", "aarch64-apple-darwin", [], "jsonnet=="),
    ("3.12", "aarch64-manylinux_2_28", [], "gojsonnet=="),
    ("3.13", "x86_64-manylinux_2_28", [], "jsonnet=="),
    ("3.8", "x86_64-manylinux_2_28", [], "torch==1.12.1"),
]


@pytest.fixture(scope="module")
def resolutions(tmp_path_factory: pytest.TempPathFactory) -> List[Tuple[int, str, str]]:
    """All of them at once, as most of the time they wait for the package index."""
    # Not setup.cfg itself, which uv would have to build.
    options = configparser.ConfigParser()
    options.read(str(ROOT / "setup.cfg"))
    wanted = [options["options"]["install_requires"]]
    wanted += [options["options.extras_require"][extra] for extra in EXTRAS]
    requirements = tmp_path_factory.mktemp("requirements") / "requirements.in"
    requirements.write_text("\n".join(wanted))
    processes = [resolve(requirements, *case[:3]) for case in CASES]
    outputs = [process.communicate() for process in processes]
    return [(process.returncode, *output) for process, output in zip(processes, outputs)]


def resolve(
    requirements: Path, python: str, platform: str, more_sources: List[str]
) -> "subprocess.Popen[str]":
    command = [str(UV), "pip", "compile", "--quiet", "--no-config", "--no-annotate"]
    command += ["--python-version", python, "--python-platform", platform, str(requirements)]
    command += ["--only-binary", ":all:"]
    command += [flag for name in SOURCES + more_sources for flag in ("--no-binary", name)]
    return subprocess.Popen(
        command,
        cwd=str(ROOT),
        env=dict(os.environ, UV_INDEX_STRATEGY="unsafe-best-match"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        universal_newlines=True,
    )


@pytest.mark.parametrize("number", range(len(CASES)), ids=["-".join(case[:2]) for case in CASES])
def test_installs_from_wheels(resolutions: List[Tuple[int, str, str]], number: int) -> None:
    (status, stdout, stderr), found = resolutions[number], CASES[number][3]
    if "Failed to fetch" in stderr or "error sending request" in stderr:
        pytest.skip("the package index cannot be reached")
    assert status == 0, stderr
    assert any(line.startswith(found) for line in stdout.splitlines()), stdout
