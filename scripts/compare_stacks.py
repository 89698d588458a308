"""
Trains the tests' archives on one stack, predicts with them on it and on another, and compares.

    python scripts/compare_stacks.py .venv310/bin/python .venv/bin/python

Prints for each archive how many of the labels (strings, whole numbers, truth values) agree and how
far the real numbers are apart at most; fails if a label differs.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path
from typing import Dict, List, Tuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from allennlp_parallel_predict.common.differences import Differences  # noqa: E402


def predict(archives: Path) -> Dict[str, str]:
    """The output file of `allennlp predict` for every case of the parity tests."""
    import allennlp_parallel_predict  # noqa: F401  (adapts AllenNLP to this stack)

    from tests.contract.parity_test import CASES, Parity
    from tests.support.running import PREDICT, call

    class Here:
        run = staticmethod(call)

    def archive(name: str) -> str:
        return str(archives / f"{name}.tar.gz")

    with tempfile.TemporaryDirectory() as folder:
        parity = Parity(Here, Here, archive, str(archives / "spacy"), Path(folder))
        outputs = {}
        for case in CASES:
            outcome = parity.run(Here, PREDICT, case, 1)
            outputs[str(case)] = outcome.traceback or outcome.output.decode()
        return outputs


def compare(old: str, new: str) -> Tuple[int, int, float]:
    """How many labels there are, how many of them differ, and the largest difference of numbers."""
    differences = Differences()
    for one, other in zip_longest(old.splitlines(), new.splitlines(), fillvalue="null"):
        differences.add(json.loads(one), json.loads(other))
    labels = [is_equal for field in differences.labels.values() for is_equal in field]
    return len(labels), labels.count(False), differences.largest


def run(python: str, *arguments: str) -> str:
    paths = [str(ROOT)] + os.environ.get("PYTHONPATH", "").split(os.pathsep)
    offline = {"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths)), **offline)
    command = [python, *arguments]
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, check=True
    ).stdout.decode()


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare what two stacks predict.")
    parser.add_argument("old", help="the interpreter that also trains the archives")
    parser.add_argument("new")
    parser.add_argument("--predict", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.predict:
        Path(arguments.new).write_text(json.dumps(predict(arguments.predict)))
        return
    with tempfile.TemporaryDirectory() as folder:
        archives = Path(folder) / "archives"
        run(arguments.old, "-m", "tests.support.archives", str(archives))
        outputs: List[Dict[str, str]] = []
        for python in (arguments.old, arguments.new):
            output = Path(folder) / "output.json"
            run(python, __file__, python, str(output), "--predict", str(archives))
            outputs.append(json.loads(output.read_text()))
    failed = False
    print(f"{'archive':44} labels  different  largest difference")
    for case, old in outputs[0].items():
        try:
            labels, different, largest = compare(old, outputs[1][case])
            print(f"{case:44} {labels:6}  {different:9}  {largest:.1e}")
            failed |= bool(different) or not labels
        except ValueError:
            print(f"{case:44} failed:\n{outputs[1][case] if old.startswith('{') else old}")
            failed = True
    sys.exit(failed)


if __name__ == "__main__":
    main()
