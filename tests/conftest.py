"""Fixtures for tests with real archives, which are trained once and kept in pytest's cache."""

import hashlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, Iterator, List

import pytest

TESTS = Path(__file__).parent
FIXTURES = TESTS / "fixtures"

# Before torch is imported, here or in a process that a test starts: one thread, which is what our
# workers have by default on a small machine. Nothing may be downloaded. `tests` and
# the package are found whatever folder a command runs in.
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")
os.environ["ALLENNLP_CACHE_ROOT"] = str(TESTS.parent / ".pytest_cache" / "allennlp")
os.environ["PYTHONPATH"] = f"{TESTS.parent}:{os.environ.get('PYTHONPATH', '')}".strip(":")

pytest.register_assert_rewrite("tests.support")
from tests.support.running import RUNNERS, Runner, leftover_children  # noqa: E402


def archives_key(folder: Path) -> str:
    """Changes with all that the archives are made from, and with the place, which some name."""
    recipe = hashlib.sha1(str(folder).encode())
    for path in [TESTS / "support" / "archives.py", FIXTURES / "writing_model.py"]:
        recipe.update(path.read_bytes())
    for package in ["allennlp", "allennlp-models", "torch", "transformers", "spacy"]:
        recipe.update(importlib.metadata.version(package).encode())
    return recipe.hexdigest()[:12]


@pytest.fixture(scope="session")
def archives(pytestconfig: pytest.Config) -> Callable[[str], str]:
    """Gives the path of a trained archive of `support/archives.py` by its name."""
    folder = Path(pytestconfig.cache.mkdir("archives")).resolve()
    folder = folder / archives_key(folder)

    def find(name: str) -> str:
        path = folder / f"{name}.tar.gz"
        if not path.exists():
            # All at once, as most of the time goes into starting; and not in this process, which
            # tests fork, and which must have no threads then.
            command = [sys.executable, "-m", "tests.support.archives", str(folder)]
            run = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=500
            )
            assert run.returncode == 0, run.stdout.decode(errors="replace")[-5000:]
        return str(path)

    return find


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive whose predictor does what its inputs say, for `tests.support.faults.command`."""
    from tests.support.faults import faulty_archive  # imports torch

    return faulty_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="session")
def spacy_model(archives: Callable[[str], str]) -> str:
    """The path of the spaCy pipeline that the archives' predictors use."""
    return str(Path(archives("text_classifier")).parent / "spacy")


@pytest.fixture(scope="session")
def predict() -> Iterator[Runner]:
    """A process for `allennlp predict`."""
    yield RUNNERS["predict"]
    RUNNERS["predict"].close()


@pytest.fixture(scope="session")
def parallel_predict() -> Iterator[Runner]:
    """A process for `allennlp parallel-predict`."""
    yield RUNNERS["parallel-predict"]
    RUNNERS["parallel-predict"].close()


@pytest.fixture(autouse=True)
def no_process_left_behind() -> Iterator[None]:
    yield
    assert leftover_children() == []


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> List[int]:
    """How many rows linear layers compute for texts, by call."""
    import torch

    counts: List[int] = []
    forward = torch.nn.Linear.forward

    def counting(linear: torch.nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        if inputs.dim() == 3:
            counts.append(inputs.size(0) * inputs.size(1))
        return forward(linear, inputs)

    monkeypatch.setattr(torch.nn.Linear, "forward", counting)
    return counts
