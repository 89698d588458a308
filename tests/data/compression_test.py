"""Compressed files, written by the commands of their names."""

import shutil
import subprocess
import sys

import pytest

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data import compression
from allennlp_parallel_predict.data.compression import READ_ERRORS
from allennlp_parallel_predict.data.sources import LineSource
from tests.fixtures import join_predictors  # noqa: F401  (registers them)
from tests.support.tables import as_records, read, write


class TestCompressed:
    @pytest.fixture(params=["gzip", "bzip2", "xz", "zstd"])
    def compressed(self, request, tmp_path):
        """What the command of this name writes: two files, one behind the other."""
        if request.param == "zstd":
            pytest.importorskip("zstandard")
        if shutil.which(request.param) is None:
            pytest.skip(f"there is no {request.param}")
        write(tmp_path / "plain")
        for number, text in enumerate([(tmp_path / "plain").read_bytes(), b"5,last\n"]):
            ran = subprocess.run(
                [request.param, "-c"], input=text, stdout=subprocess.PIPE, check=True
            )
            with open(tmp_path / "hash-of-a-url", "ab") as file:
                file.write(ran.stdout)
        return tmp_path / "hash-of-a-url"

    def test_recognised_by_content(self, compressed):
        found = read(compressed, "csv")
        assert [r for _, _, r in found] == as_records() + [{"id": "5", "text": "last"}]
        assert LineSource(str(compressed)).total() is None

    def test_cut_off(self, compressed):
        data = compressed.read_bytes()
        compressed.write_bytes(data[:-12])
        with pytest.raises((EOFError, OSError)) as caught:
            read(compressed, "csv")
        assert "cannot read the input file" in caught.value.explanation

    def test_damaged(self, compressed):
        data = bytearray(compressed.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 40] = b"x" * 40
        compressed.write_bytes(data)
        with pytest.raises(READ_ERRORS) as caught:
            read(compressed, "csv")
        assert caught.value.explanation.startswith("cannot read the input file: ")

    def test_without_the_library(self, tmp_path, monkeypatch):
        (tmp_path / "in.zst").write_bytes(b"\x28\xb5\x2f\xfd")
        monkeypatch.setitem(sys.modules, "zstandard", None)
        with pytest.raises(SettingsError, match=r"pip install 'allennlp-parallel-predict\[zstd\]'"):
            read(tmp_path / "in.zst", "text")

    def test_a_text_that_begins_like_one(self, tmp_path):
        (tmp_path / "in").write_text("BZh9 is how bzip2 begins\n")
        assert compression.compression_of(str(tmp_path / "in")) is None
