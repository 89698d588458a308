"""
The checks, in environments with one trouble each. What is installed is pretended by metadata and
modules in a folder that comes first on the path.
"""

import os
from typing import Dict

import pytest

from allennlp_parallel_predict.doctor import checks
from allennlp_parallel_predict.doctor.environment import Environment


@pytest.fixture
def pretend(tmp_path, monkeypatch):
    """Pretends that other versions of packages are installed."""

    def versions(**packages: str) -> None:
        for name, version in packages.items():
            folder = tmp_path / f"{name}-{version}.dist-info"
            folder.mkdir()
            (folder / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")

    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return versions


def texts(check: str, environment: Environment) -> str:
    return "\n".join(
        f"{finding.text} | {finding.remedy}" for finding in getattr(checks, check)(environment)
    )


OLD, MODERN = (3, 10), (3, 12)


OLD_STACK = {
    "torch": "1.12.1",
    "numpy": "1.23.5",
    "setuptools": "75.3",
    "pydantic": "1.8.2",
    "typing_extensions": "4.5.0",
    "spacy": "3.3.3",
    "transformers": "4.20.1",
    "huggingface_hub": "0.10.1",
    "py-rouge": "1.1",
}


MODERN_STACK = {
    "torch": "2.13.0",
    "numpy": "2.5.5",
    "setuptools": "80.9.0",
    "pydantic": "2.14.4",
    "typing_extensions": "4.16",
    "spacy": "3.8.18",
    "transformers": "4.57.6",
    "huggingface_hub": "0.36.2",
    "py-rouge": "1.1",
}


@pytest.mark.parametrize(
    "check, python, installed, told",
    [
        ("check_python", (3, 14), {}, "Python 3.14 is not supported"),
        ("check_torch", OLD, {"torch": "2.13.0"}, '"torch>=1.10,<1.13"'),
        ("check_torch", MODERN, {"torch": "1.13.1"}, '"torch>=2.6"'),
        ("check_numpy", OLD, {"numpy": "2.0.1"}, "numpy<1.24"),
        ("check_numpy", MODERN, {"numpy": "2.0.1", "spacy": "3.7.5"}, "spacy>=3.8"),
        ("check_setuptools", OLD, {"setuptools": "81.0.0", "py-rouge": "1.1"}, "setuptools<81"),
        ("check_pydantic", OLD, {"pydantic": "2.1", "spacy": "3.3.3"}, "pydantic<1.9"),
        (
            "check_pydantic",
            (3, 8),
            {"pydantic": "1.8.2", "spacy": "3.3.3", "typing_extensions": "4.6.0"},
            "typing_extensions<4.6",
        ),
        ("check_hugging_face", MODERN, {"transformers": "5.0.0"}, "transformers>=4.56,<5"),
        ("check_hugging_face", MODERN, {"huggingface_hub": "1.0"}, "huggingface_hub<1"),
    ],
)
def test_finds_versions_that_do_not_fit(
    pretend, check: str, python, installed: Dict[str, str], told: str
) -> None:
    pretend(**installed)
    assert told in texts(check, Environment(python))


@pytest.mark.parametrize(
    "python, installed", [((3, 8), OLD_STACK), ((3, 10), OLD_STACK), ((3, 13), MODERN_STACK)]
)
def test_is_content_with_both_stacks(pretend, python, installed: Dict[str, str]) -> None:
    pretend(**installed)
    for name in "python torch numpy setuptools pydantic hugging_face".split():
        assert texts(f"check_{name}", Environment(python)) == ""


def test_finds_what_is_not_installed(monkeypatch) -> None:
    monkeypatch.setattr(Environment, "version", lambda self, package: None)
    assert "torch is not installed" in texts("check_torch", Environment(MODERN))
    found = list(checks.check_allennlp(Environment(MODERN)))
    assert "allennlp==2.10.1" in found[0].remedy and found[0].fix is not None


def test_finds_the_import_that_fails(tmp_path, monkeypatch) -> None:
    (tmp_path / "torch.py").write_text(
        "raise ImportError('libtorch_cpu.so: cannot enable executable stack as shared object')"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    found = texts("check_imports", Environment())
    assert found.startswith("import torch fails: ImportError: libtorch_cpu.so")
    assert found.endswith("doctor --fix") and found.count("\n") == 0


@pytest.mark.parametrize(
    "capability, architectures, runs",
    [
        ((7, 5), ["sm_70", "sm_75"], True),
        ((8, 6), ["sm_37", "sm_80"], True),
        ((9, 0), ["sm_37", "sm_86"], False),  # torch 1.12 on an H100
        ((9, 0), ["sm_80", "sm_90a"], True),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((7, 0), ["sm_75", "compute_75"], False),
        ((10, 0), ["sm_100", "sm_120"], True),
    ],
)
def test_knows_which_gpus_a_build_runs_on(capability, architectures, runs) -> None:
    assert checks.has_kernels(capability, architectures) is runs


def test_names_the_plugin_once(pretend) -> None:
    file = checks.plugins_file()
    file.parent.mkdir()
    file.write_text("my_plugin")
    [finding] = checks.check_plugin(Environment())
    assert finding.fix is not None and not finding.is_problem
    finding.fix()
    assert file.read_text() == "my_plugin\nallennlp_parallel_predict\n"
    assert list(checks.check_plugin(Environment())) == []
