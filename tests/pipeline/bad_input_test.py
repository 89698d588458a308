"""Inputs that are no JSON lines: a sentence. Outputs that cannot be written: one bad line."""

import json

import pytest

from allennlp_parallel_predict.common.messages import Batch, BatchKind
from allennlp_parallel_predict.pipeline.bad_input import explain_input
from tests.support.faults import command, expected, numbered

pytestmark = pytest.mark.timeout(120)


def predict(archive, folder, data, *flags):
    (folder / "input").write_bytes(data)
    flags = ["--num-workers", 2, "--output-file", folder / "output", *flags]
    with command(archive, folder / "input", *flags, folder=folder) as running:
        running.wait()
    return running


@pytest.mark.parametrize(
    "data, message",
    [
        (b"source,target\n1,2\n", "input line 1 is not JSON: 'source,target'"),
        (b'{"n": 1}\n\nplain text\n', "input line 3 is not JSON: 'plain text'"),
        (b'[{"n": 1},\n {"n": 2}]\n', "input line 1 is not JSON: "),
        (b'[{"n": 1}]\n', "input line 1 is not a JSON object: "),
        (b'\xef\xbb\xbf{"n": 1}\n', "input line 1 begins with a byte order mark (BOM)"),
        ('{"n": 1}\n'.encode("utf-16"), "input line 1 is not UTF-8, it is UTF-16: "),
        (b'{"n": "caf\xe9"}\n', "input line 1 is not UTF-8, convert"),
        (b'{"n": 1}\n{"m": 2}\n', "input line 2 has no key 'n' but 'm'"),
        (b"\x1b[31mred\x07\n", r"input line 1 is not JSON: '\x1b[31mred\x07'"),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, bytes) else "",
)
def test_the_last_line_is_a_sentence(archive, tmp_path, data, message):
    running = predict(archive, tmp_path, data, "--silent")
    assert running.status == 1 and "Traceback" not in running.stderr
    assert running.stderr.splitlines()[-1].startswith(
        f"allennlp parallel-predict: error: {message}"
    )
    assert "\x1b" not in running.stderr


def test_errors_that_are_not_the_inputs_keep_their_traceback():
    batch = Batch(0, BatchKind.LINES, ['{"sentence": "a"}\n'], [0], [1])
    deep = 'File "a.py", line 1, in predict_json\n  File "b.py", line 2, in forward\nKeyError: 1'
    assert explain_input(batch, 0, KeyError("word"), deep) is None
    assert explain_input(batch, 0, ValueError("x"), "") is None
    assert explain_input(batch, 0, json.JSONDecodeError("x", "y", 0), "") is None


class TestOutputsThatCannotBeWritten:
    INPUTS = numbered(12, {5: {"raw": "\ud800\n"}})
    DATA = "".join(json.dumps(line) + "\n" for line in INPUTS).encode()

    @pytest.mark.parametrize("batch_size", [1, 4])
    @pytest.mark.parametrize("flags", [["--silent"], []], ids=str)
    def test_skip(self, archive, tmp_path, batch_size, flags):
        flags = [*flags, "--on-error", "skip", "--errors-file", tmp_path / "errors"]
        flags += ["--batch-size", batch_size]
        assert predict(archive, tmp_path, self.DATA, *flags).status == 3
        (record,) = map(json.loads, (tmp_path / "errors").open())
        assert (record["line"], record["type"]) == (6, "UnicodeEncodeError")
        assert (tmp_path / "output").read_text() == expected(n for n in range(12) if n != 5)

    def test_raise(self, archive, tmp_path):
        running = predict(archive, tmp_path, self.DATA, "--silent", "--batch-size", 4)
        assert running.status == 1
        assert "at input line 6: " in running.stderr
        assert (tmp_path / "output").read_text() == expected(range(5))
