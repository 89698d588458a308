"""What the process is told about the machine."""

import asyncio
from pathlib import Path

import pytest
import torch

from allennlp_parallel_predict import AsyncPredictor, ParallelPredictor
from allennlp_parallel_predict.common.machine import has_slow_mkl
from allennlp_parallel_predict.worker import process
from tests.support.pools import ARCHIVE, WORDS, in_fork
from tests.support.running import allennlp

OLD = "Intel(R) Math Kernel Library Version 2020.0.0 Product Build 20191122"
NEWER = "Intel(R) oneAPI Math Kernel Library Version 2021.4-Product Build 20210904"
VARIABLE = "MKL_DEBUG_CPU_TYPE"
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
    monkeypatch.delenv(VARIABLE, raising=False)
    if chosen is not None:
        monkeypatch.setenv(VARIABLE, chosen)
    monkeypatch.setattr(torch.__config__, "show", lambda: f"PyTorch built with:\n  - {mkl}\n")
    monkeypatch.setattr(Path, "read_text", lambda path: f"{cpu}\nflags : {flags}\n")
    assert has_slow_mkl() is is_slow


def test_where_the_cpu_cannot_be_told(monkeypatch):
    def read_text(path):
        raise FileNotFoundError

    monkeypatch.setattr(torch.__config__, "show", lambda: OLD)
    monkeypatch.setattr(Path, "read_text", read_text)
    assert has_slow_mkl() is False


@pytest.mark.timeout(120)
def test_only_last_digits_differ_if_they_may():
    def predict(**settings):
        options = {"num_workers": 1, "settings": settings}
        with ParallelPredictor.from_path(str(ARCHIVE), **options) as predictor:
            return list(predictor.predict_stream(WORDS, batch_size=16))

    for exact, fast in zip(predict(), predict(exact=False)):
        assert fast["predicted_tokens"] == exact["predicted_tokens"]
        probabilities = pytest.approx(exact["class_log_probabilities"], rel=1e-4)
        assert fast["class_log_probabilities"] == probabilities


class TestWhetherAModelHasToBeExact:
    """What workers are told when they make theirs faster."""

    @pytest.fixture
    def told(self, monkeypatch, tmp_path):
        def note(predictor, exact, precision):
            with open(tmp_path / "told", "a") as file:
                file.write("exact " if exact else "not exact ")

        monkeypatch.setattr(process, "tune_predictor", note)
        return tmp_path / "told"

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize(
        "settings, exact",
        [
            ("{}", "exact"),
            ('{"batching.type": "bucket"}', "not exact"),
            ('{"exact": false}', "not exact"),
            ('{"exact": true, "batching.type": "bucket"}', "not exact"),
        ],
    )
    def test_the_command(self, told, tmp_path, settings, exact):
        (tmp_path / "input").write_text('{"source": "word"}\n')
        flags = ["--silent", "--num-workers", "1", "--output-file", str(tmp_path / "output")]
        flags += ["--parallel-overrides", settings]
        args = ["parallel-predict", str(ARCHIVE), str(tmp_path / "input"), *flags]
        in_fork(lambda: allennlp(args))
        assert told.read_text() == f"{exact} "

    @pytest.mark.parametrize(
        "settings, exact",
        [
            ({}, "exact"),
            # Only streams are sorted, and other calls shall give what a `Predictor` gives.
            ({"batching": "bucket"}, "exact"),
            ({"exact": False}, "not exact"),
        ],
    )
    def test_from_python(self, told, settings, exact):
        options = {"num_workers": 1, "settings": settings}
        with ParallelPredictor.from_path(str(ARCHIVE), **options) as predictor:
            predictor.predict_json(WORDS[0])
        assert told.read_text() == f"{exact} "

    @pytest.mark.parametrize("size, exact", [(32, "not exact"), (1, "exact")])
    def test_from_asyncio(self, told, size, exact):
        """Where single calls are predicted together."""

        async def use():
            options = {"num_workers": 1, "max_batch_size": size}
            async with AsyncPredictor.from_path(str(ARCHIVE), **options) as predictor:
                await predictor.predict_json(WORDS[0])

        asyncio.run(use())
        assert told.read_text() == f"{exact} "
