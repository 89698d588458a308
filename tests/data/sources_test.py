import bz2
import gzip
import io
import lzma
import os
import sys
import threading

import pytest

from allennlp_parallel_predict.data.sources import LineSource


def read(source):
    return [item for item in source if item is not None]


def test_blank_lines_have_a_number_but_no_position(tmp_path):
    file = tmp_path / "in.txt"
    file.write_bytes(b"a\n\n \t\nb\r\nc")
    assert read(LineSource(str(file))) == [(0, 1, "a\n"), (1, 4, "b\n"), (2, 5, "c")]


def test_skipped_lines_do_not_change_the_numbers_of_the_others(tmp_path):
    file = tmp_path / "in.txt"
    file.write_text("a\n\nb\nc\n")
    everything = read(LineSource(str(file)))
    assert read(LineSource(str(file), skip_lines=2, first_position=1)) == everything[1:]


@pytest.mark.parametrize("module, suffix", [(gzip, "gz"), (bz2, "bz2"), (lzma, "xz")])
def test_compressed_files(tmp_path, module, suffix):
    file = tmp_path / f"in.txt.{suffix}"
    with module.open(str(file), "wt", encoding="utf-8") as lines:
        lines.write("ä\nb\n")
    source = LineSource(str(file))
    assert [item.value for item in read(source)] == ["ä\n", "b\n"]
    assert source.total() is None


def test_undecodable_bytes_cost_one_line(tmp_path):
    file = tmp_path / "in.txt"
    file.write_bytes(b"a\n\xff\nb\n")
    source = LineSource(str(file))
    assert [item.value for item in read(source)] == ["a\n", "\udcff\n", "b\n"]
    assert source.encoding == "UTF-8"


def test_total_counts_lines(tmp_path):
    file = tmp_path / "in.txt"
    file.write_text("a\nb\nc\n")
    assert LineSource(str(file)).total() == 3


def test_a_replaced_stdin_is_read_like_a_file(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\n\nb"))
    assert [item.value for item in read(LineSource("-"))] == ["a\n", "b"]


def test_a_pipe_gives_what_is_there_and_does_not_wait(monkeypatch):
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as stdin, os.fdopen(writing, "wb", 0) as pipe:
        monkeypatch.setattr(sys, "stdin", stdin)
        source = LineSource("-")
        assert source.fileno() == reading
        items = iter(source)
        assert next(items) is None
        pipe.write("one\r\ntw".encode())
        assert next(items).value == "one\n"
        assert next(items) is None
        pipe.write("ö\n\nthree".encode())
        assert next(items).value == "twö\n"
        assert next(items) is None
        pipe.close()
        assert next(items) == (2, 4, "three")
        assert list(items) == []


@pytest.mark.parametrize("text", [b"", b"\n", b"a\rb\r\nc\n\n", "ä\u2028b\x85c\x0bd\n".encode()])
def test_a_pipe_has_the_same_lines_as_a_file(tmp_path, monkeypatch, text):
    file = tmp_path / "in.txt"
    file.write_bytes(text)
    reading, writing = os.pipe()
    with os.fdopen(reading, encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)

        def write_bytewise():
            with os.fdopen(writing, "wb", 0) as pipe:
                for byte in text:
                    pipe.write(bytes([byte]))

        writer = threading.Thread(target=write_bytewise)
        writer.start()
        assert read(LineSource("-")) == read(LineSource(str(file)))
        writer.join()
