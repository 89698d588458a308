"""What the process is told about the machine."""

from pathlib import Path

import pytest
import torch

from allennlp_parallel_predict.tuning import has_slow_mkl

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
