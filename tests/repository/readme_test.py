"""What the documents promise is there: links, flags, settings, commands."""

import argparse
import inspect
import re
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
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def flags_of(command):
    subparsers = argparse.ArgumentParser().add_subparsers()
    return {flag for a in command.add_subparser(subparsers)._actions for flag in a.option_strings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
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
