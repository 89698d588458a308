"""A short run of the benchmark, to see that it runs: its figures are for machines at rest."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.timeout(240)
def test_benchmark(tmp_path):
    output = tmp_path / "report"
    flags = ["--workloads", "g2p", "--lines", "64", "--rounds", "1", "--fresh"]
    subprocess.run(
        [sys.executable, "benchmarks/run.py", *flags, "--output", str(output)]
        + ["--contestants", "predict", "ours"],
        cwd=ROOT,
        env={**os.environ, "BENCHMARK_CACHE": str(tmp_path / "cache"), "MKL_DEBUG_CPU_TYPE": "5"},
        check=True,
    )
    rows = json.loads((output / "results.json").read_text())
    assert {row["contestant"]: row["outcome"] for row in rows} == {
        "predict-1-thread": "ok",
        "predict": "ok",
        "ours": "ok",
    }
    ours = next(row for row in rows if row["contestant"] == "ours")
    assert ours["identical"]
    assert ours["first"] < ours["seconds"]
    assert ours["pss"] > 100
    page = (output / "README.md").read_text()
    assert "parallel-predict" in page and "With MKL_DEBUG_CPU_TYPE=5." in page


@pytest.mark.timeout(120)
def test_sentences_are_many_and_always_the_same():
    from benchmarks.texts import collect

    sentences = collect(8_000)
    assert len({text for text, _ in sentences}) == 8_000
    assert {kind for _, kind in sentences} >= {"comment", "docstring"}


SCRIPTS = [path.stem for path in (ROOT / "benchmarks").glob("*.py") if "main()" in path.read_text()]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_says_how_to_use_it(script):
    command = [sys.executable, f"benchmarks/{script}.py", "--help"]
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    assert b"usage:" in ran.stdout and b"--help" in ran.stdout


@pytest.mark.timeout(240)
def test_stacks_compares_environments(tmp_path):
    flags = ["--workloads", "g2p", "--lines", "192", "--rounds", "1"]
    flags += ["--contestants", "predict", "ours"]
    ran = subprocess.run(
        [sys.executable, "benchmarks/stacks.py", *flags, "--python", sys.executable],
        cwd=ROOT,
        env={**os.environ, "BENCHMARK_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        check=True,
    )
    row = ran.stdout.decode().splitlines()[-1]
    assert row.startswith("| grapheme to phoneme") and "batches of 32 | Python 3" in row
    _, predict, ours, bucket = row.rsplit("|", 4)[:4]
    assert "(1.00)" in predict and "(" in ours and not bucket.strip()
