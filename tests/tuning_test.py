"""What the process is told about the machine."""

import asyncio
from pathlib import Path

import pytest
import torch

from allennlp_parallel_predict import AsyncPredictor, ParallelPredictor, tuning
from allennlp_parallel_predict.tuning import has_slow_mkl
from pools import ARCHIVE, WORDS, in_fork
from running import allennlp

OLD = "Intel(R) Math Kernel Library Version 2020.0.0 Product Build 20191122"
NEWER = "Intel(R) oneAPI Math Kernel Library Version 2021.4-Product Build 20210904"
AMD, INTEL = "vendor_id : AuthenticAMD", "vendor_id : GenuineIntel"


@pytest.mark.parametrize(
    "mkl, cpu, flags, chosen, is_slow",
    [
        (OLD, AMD, "sse avx avx2 fma", None, True),
        (OLD, AMD, "sse avx avx2 fma", "5", False),
        (OLD, AMD, "sse avx fma", None, False),
        (OLD, INTEL, "sse avx avx2 fma", None, False),
        (NEWER, AMD, "sse avx avx2 fma", None, False),
        ("no MKL", AMD, "sse avx avx2 fma", None, False),
    ],
)
def test_slow_mkl(monkeypatch, mkl, cpu, flags, chosen, is_slow):
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE", raising=False)
    if chosen is not None:
        monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", chosen)
    monkeypatch.setattr(torch.__config__, "show", lambda: f"PyTorch built with:\n  - {mkl}\n")
    monkeypatch.setattr(Path, "read_text", lambda path: f"{cpu}\nflags : {flags}\n")
    assert has_slow_mkl() is is_slow


def test_where_the_cpu_cannot_be_told(monkeypatch):
    def read_text(path):
        raise FileNotFoundError

    monkeypatch.setattr(torch.__config__, "show", lambda: OLD)
    monkeypatch.setattr(Path, "read_text", read_text)
    assert has_slow_mkl() is False


class TestWhetherAModelHasToBeExact:
    """What workers are told when they make theirs faster."""

    @pytest.fixture
    def told(self, monkeypatch, tmp_path):
        def note(model, exact):
            with open(tmp_path / "told", "a") as file:
                file.write("exact " if exact else "not exact ")

        monkeypatch.setattr(tuning, "tune_model", note)
        return tmp_path / "told"

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("batching, exact", [("in_order", "exact"), ("bucket", "not exact")])
    def test_the_command(self, told, tmp_path, batching, exact):
        (tmp_path / "input").write_text('{"source": "word"}\n')
        flags = ["--silent", "--num-workers", "1", "--output-file", str(tmp_path / "output")]
        flags += ["--parallel-overrides", f'{{"batching.type": "{batching}"}}']
        command = ["parallel-predict", str(ARCHIVE), str(tmp_path / "input"), *flags]
        in_fork(lambda: allennlp(command))
        assert told.read_text() == f"{exact} "

    def test_from_python(self, told):
        with ParallelPredictor.from_path(str(ARCHIVE), num_workers=1) as predictor:
            predictor.predict_json(WORDS[0])
        assert told.read_text() == "exact "

    @pytest.mark.parametrize("size, exact", [(32, "not exact"), (1, "exact")])
    def test_from_asyncio(self, told, size, exact):
        """Where single calls are predicted together."""

        async def use():
            options = {"num_workers": 1, "max_batch_size": size}
            async with AsyncPredictor.from_path(str(ARCHIVE), **options) as predictor:
                await predictor.predict_json(WORDS[0])

        asyncio.run(use())
        assert told.read_text() == f"{exact} "
