"""What the documents promise is there: links, flags, settings, commands."""

import argparse
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from allennlp.commands.predict import Predict

from allennlp_parallel_predict import (
    BucketBatching,
    InOrderBatching,
    ParallelPredict,
    ProcessPoolExecutor,
    Settings,
)
from allennlp_parallel_predict.executors.ray.executor import RayExecutor

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "examples/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


def flags_of(command):
    subparsers = argparse.ArgumentParser().add_subparsers()
    return {flag for a in command.add_subparser(subparsers)._actions for flag in a.option_strings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_every_flag_is_in_the_readme():
    ours = flags_of(ParallelPredict()) - flags_of(Predict())
    assert {flag for flag in ours if f"`{flag}" not in README} == set()
    assert "--num-workers" in ours


def test_the_table_of_settings_is_complete():
    documented = set(re.findall(r"^\| `([a-z_.]+)` \|", README, flags=re.MULTILINE))
    keys = {"executor.type", "batching.type"}
    for prefix, owner in [
        ("", Settings),
        ("executor.", ProcessPoolExecutor),
        ("executor.", RayExecutor),
        ("batching.", InOrderBatching),
        ("batching.", BucketBatching),
    ]:
        parameters = set(inspect.signature(owner.__init__).parameters)
        keys |= {prefix + name for name in parameters - {"self", "executor", "batching"}}
    assert documented == keys


def test_the_makefile_has_what_the_readme_names():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z][a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.timeout(120)
def test_the_example_prints_what_the_readme_shows(tmp_path):
    commands, shown = re.search(
        r"^## Example\n.*?```bash\n(.*?)```.*?```\n(.*?)```", README, flags=re.M | re.S
    ).groups()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    # As the console script does, which is there only where the package is installed.
    script = (
        f'allennlp-parallel-predict() {{ {sys.executable} -m allennlp_parallel_predict "$@"; }}'
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ALLENNLP_LOG_LEVEL": "ERROR"}
    subprocess.run(
        ["bash", "-ec", f"{script}\n{commands}"], cwd=tmp_path, env=environment, check=True
    )
    outputs = [json.loads(line) for line in (tmp_path / "output.jsonl").read_text().splitlines()]
    assert len(outputs) == len(shown.splitlines())
    for output, line in zip(outputs, shown.splitlines()):
        assert re.findall(r'"([a-z_]+)":', line) == [key for key in output if f'"{key}"' in line]
        tokens = re.findall(r'"([A-Z]+)"', line)
        assert tokens and output["predicted_tokens"][0][: len(tokens)] == tokens
        probability = float(re.search(r"\[(-[0-9.]+)", line).group(1))
        assert abs(output["class_log_probabilities"][0] - probability) < 1e-3


def test_every_example_is_described():
    described = set(
        re.findall(r"^\| `([^`]+)` \|", (ROOT / "examples/README.md").read_text(), re.M)
    )
    there = {
        f"{path.name}/" if path.is_dir() else path.name for path in (ROOT / "examples").iterdir()
    }
    assert described == there - {"README.md", "__pycache__/"}


def test_the_files_that_the_documents_name_exist():
    package = ROOT / "allennlp_parallel_predict"
    named = set()
    for document in DOCUMENTS:
        if document.name == "CHANGELOG.md":  # it also names what is gone
            continue
        named |= set(
            re.findall(
                r"(?<![a-z/])((?!torch/)(?:[a-z_]+/)+[a-z_]+\.(?:py|jsonnet|ipynb))\b",
                document.read_text(),
            )
        )
    there = [name for name in named if (package / name).exists() or (ROOT / name).exists()]
    assert sorted(named) == sorted(there)
    assert "worker/worker.py" in named


def test_the_version_is_the_same_everywhere():
    version = re.search(r"^version = (.+)$", (ROOT / "setup.cfg").read_text(), re.M).group(1)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version} - 20" in (ROOT / "CHANGELOG.md").read_text()
