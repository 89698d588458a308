"""Each kind of input with each combination of flags, held against `allennlp predict`."""

import bz2
import contextlib
import gzip
import json
import lzma
import os
import threading
from pathlib import Path
from typing import Iterator

import pytest

from tests.contract.predict_test import SENTENCES, both, classifier  # noqa: F401
from tests.support.running import PARALLEL_PREDICT, PREDICT, assert_same

pytestmark = pytest.mark.timeout(150)

LINES = [json.dumps({"sentence": s, "text": s, "label": "long"}) for s in SENTENCES]
TEXT = "".join(line + "\n" for line in LINES)

KINDS = {
    "lines": TEXT,
    "no newline at the end": TEXT[:-1],
    "blank lines": "\n \n" + TEXT.replace("\n", "\n\n \t\n"),
    "CRLF": TEXT.replace("\n", "\r\n"),
    "not ASCII": "".join(json.dumps(json.loads(x), ensure_ascii=False) + "\n" for x in LINES),
    "a lone surrogate": TEXT.replace("win", "w\\ud800n"),
    "one line": LINES[0] + "\n",
    "empty": "",
    "a byte order mark": "\ufeff" + TEXT,
    "UTF-16": TEXT.encode("utf-16"),
    "a JSON array": "[" + ",\n".join(LINES) + "]\n",
    "plain text": "\n".join(SENTENCES),
    "a bad line": "\n".join([*LINES[:4], "{", *LINES[4:]]) + "\n",
    "a missing key": "\n".join([*LINES[:5], '{"x": 1}', *LINES[5:]]) + "\n",
    "gzip": gzip.compress(TEXT.encode()),
    "bzip2": bz2.compress(TEXT.encode()),
    "xz": lzma.compress(TEXT.encode()),
    "standard input": TEXT,
    "a FIFO": TEXT,
}
NAMES = {"gzip": "i.gz", "bzip2": "i.bz2", "xz": "i.xz", "standard input": "-", "a FIFO": "fifo"}

READER = "--use-dataset-reader"
FLAGS = {
    "none": "",
    "a batch size": "--batch-size 3",
    "one batch, silent": "--batch-size 100 --silent",
    "no output file": "",
    "a reader": READER,
    "a reader, a batch size, silent": f"{READER} --batch-size 3 --silent",
    "overrides": '--batch-size 2 -o {"dataset_reader.max_sequence_length":1}',
}


@contextlib.contextmanager
def fed(fifo: Path, data: bytes) -> Iterator[None]:
    """A FIFO that somebody writes to, once."""

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            fifo.write_bytes(data)

    os.mkfifo(fifo)
    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))  # if nobody has opened it
        writer.join()
        fifo.unlink()


@pytest.mark.parametrize("flags", FLAGS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_as_predict(both, classifier, tmp_path, kind, flags) -> None:  # noqa: F811
    content = KINDS[kind]
    data = content if isinstance(content, bytes) else content.encode()
    name = NAMES.get(kind, "input.jsonl")
    more = FLAGS[flags].split()
    if name != "fifo":
        text, stdin = (None, data) if name == "-" else (data, b"")
        to_file = flags != "no output file"
        both(classifier, text, *more, name=name, to_file=to_file, stdin=stdin)
        return
    outcomes = []
    files = ["--output-file", str(both.output)] if flags != "no output file" else []
    for command in (PARALLEL_PREDICT, PREDICT):
        with fed(tmp_path / name, data):
            outcomes.append(both.run(command, classifier, str(tmp_path / name), *more, *files))
    assert_same(*outcomes)
