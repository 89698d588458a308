"""
`allennlp-parallel-predict doctor [--fix]` finds the known troubles of an installation.

It runs where `import torch` fails: nothing here imports torch or AllenNLP, except processes that it
starts to see whether they can.
"""

import argparse
import platform
import subprocess
from typing import List, Optional

from allennlp_parallel_predict.doctor.checks import CHECKS, Finding
from allennlp_parallel_predict.doctor.environment import Environment, show_version
from allennlp_parallel_predict.doctor.remedies import CONSOLE_SCRIPT, explain_import_error

__all__ = ["explain_import_error", "main"]

_SHOWN = ["torch", "allennlp", "allennlp-models", "numpy", "spacy", "transformers", "ray"]


def main(arguments: Optional[List[str]] = None) -> int:
    """Runs the command; returns 0 if nothing is left that makes predictions fail, else 1."""
    parser = argparse.ArgumentParser(
        prog=f"{CONSOLE_SCRIPT} doctor",
        description="Find what is wrong with an installation, and what to do about it.",
    )
    parser.add_argument("--fix", action="store_true", help="apply the remedies that are safe")
    fix = parser.parse_args(arguments).fix
    environment = Environment()
    versions = [(name, environment.version(name)) for name in _SHOWN]
    shown = [f"{name} {show_version(version)}" for name, version in versions if version]
    print(", ".join([f"Python {platform.python_version()}", *shown]))
    problems = 0
    for check in CHECKS:
        for finding in check(environment):
            is_fixed = _treat(finding, fix)
            problems += finding.is_problem and not is_fixed
    print(f"\n{problems or 'no'} problem{'s' * (problems != 1)} {'left' if fix else 'found'}")
    return int(problems > 0)


def _treat(finding: Finding, fix: bool) -> bool:
    """Prints a finding, and applies its remedy if that is wanted. Returns whether it did."""
    print(f"\n{'PROBLEM' if finding.is_problem else 'note'}: {finding.text}")
    if not (fix and finding.fix):
        print(f"  remedy: {finding.remedy}")
        return False
    try:
        finding.fix()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"  could not be fixed: {error}\n  remedy: {finding.remedy}")
        return False
    print("  fixed")
    return True
