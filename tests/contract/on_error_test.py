"""Bad lines of every kind, with `raise`, `skip` and `placeholder`."""

import json
import random

import pytest

from allennlp_parallel_predict.common.errors import SettingsError, TooManyErrors
from allennlp_parallel_predict.executors import InProcessExecutor
from allennlp_parallel_predict.settings import build_settings, read_settings
from tests.support.faults import command, expected, numbered, run, settings

pytestmark = pytest.mark.timeout(90)

BAD = {
    "malformed": ("text:{not JSON", "json.decoder.JSONDecodeError", "Expecting"),
    "cut off": ('text:{"n": 5', "json.decoder.JSONDecodeError", "Expecting"),
    "missing key": ('text:{"m": 5}', "KeyError", "'n'"),
    "not an object": ("text:5", "AttributeError", "'int' object"),
    "raises": ("raise", "ValueError", "the model cannot take 5"),
    "leaves": ("leave", "SystemExit", "9"),
    "too large": ("memory", "MemoryError", ""),
    "kills": ("kill", "allennlp_parallel_predict.common.errors.WorkerDied", "SIGKILL"),
    "deep": ("text:" + "[" * 100_000, "RecursionError", "recursion"),
    "oversized": ('text:{"text": "' + "x" * 5_000_000 + '"}', "KeyError", "'n'"),
}


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("kind", BAD)
class TestABadLine:
    def test_skip(self, tmp_path, kind, batch_size):
        fault, error_type, message = BAD[kind]
        inputs = numbered(12, {5: fault})
        ran = run(inputs, tmp_path, batch_size)
        assert ran.output == expected(n for n in range(12) if n != 5)
        (error,) = ran.errors
        assert (error["line"], error["type"]) == (6, error_type)
        assert message in error["message"]
        line = inputs[5] if isinstance(inputs[5], str) else json.dumps(inputs[5])
        assert error["input"] == line
        assert error_type.split(".")[-1] in error["traceback"]
        assert (ran.written.failures, ran.written.positions) == (1, 12)

    def test_placeholder(self, tmp_path, kind, batch_size):
        fault, error_type, message = BAD[kind]
        ran = run(numbered(12, {5: fault}), tmp_path, batch_size, "placeholder")
        before, after = expected(range(5)), expected(range(6, 12))
        assert ran.output.startswith(before) and ran.output.endswith(after)
        (line,) = ran.output[len(before) : -len(after)].splitlines()
        error = json.loads(line)["error"]
        assert (error["line"], error["type"], error["message"]) == (
            6,
            error_type,
            ran.errors[0]["message"],
        )

    def test_raise(self, tmp_path, kind, batch_size):
        fault, error_type, message = BAD[kind]
        with pytest.raises(BaseException) as caught:
            run(numbered(12, {5: fault}), tmp_path, batch_size, "raise")
        assert type(caught.value).__name__ == error_type.split(".")[-1]
        assert "input line 6" in str(caught.value.__cause__)
        # Those of its batch that were harmless when they were tried one by one are written too.
        before = [expected(range(n)) for n in (5 // batch_size * batch_size, 5)]
        assert (tmp_path / "output").read_text() in before


def test_many_in_one_batch(tmp_path):
    bad = {n: BAD[kind][0] for n, kind in zip(range(1, 20, 2), BAD)}
    ran = run(numbered(20, bad), tmp_path, batch_size=20)
    assert (ran.failed, ran.output) == (sorted(bad), expected(range(0, 20, 2)))


@pytest.mark.parametrize("batch_size, workers", [(1, 1), (1, 3), (4, 1), (7, 2)])
@pytest.mark.parametrize("on_error", ["skip", "placeholder"])
def test_clusters_of_every_kind(tmp_path, batch_size, workers, on_error):
    """Each kind beside each other one, and in a row of its own, with few good lines between."""
    kinds, rng = [*BAD, "unencodable"], random.Random(batch_size * workers)
    bad, n = {}, 1
    for row in [*([kind] * 3 for kind in kinds), *(rng.sample(kinds, 4) for _ in range(12))]:
        bad.update((n + i, kind) for i, kind in enumerate(row))
        n += len(row) + rng.choice([1, 1, 2, 5])
    faults = {n: BAD[kind][0] if kind in BAD else {"raw": "\ud800\n"} for n, kind in bad.items()}
    ran = run(numbered(n, faults), tmp_path, batch_size, on_error, num_workers=workers)
    assert ran.failed == sorted(bad)
    types = [
        BAD[kind][1] if kind in BAD else "UnicodeEncodeError" for _, kind in sorted(bad.items())
    ]
    assert [error["type"] for error in ran.errors] == types
    lines = [line for line in ran.output.splitlines(True) if not line.startswith('{"error"')]
    assert "".join(lines) == expected(i for i in range(n) if i not in bad)
    if on_error == "placeholder":
        assert ran.output.count('{"error": ') == len(bad)


@pytest.mark.parametrize("executor", [InProcessExecutor, None])
@pytest.mark.parametrize("allowed", [0, 2])
def test_max_errors(tmp_path, executor, allowed):
    bad = {n: "raise" for n in range(3, 40, 4)}
    with pytest.raises(TooManyErrors, match=f"line {4 * allowed + 4}"):
        run(
            numbered(40, bad),
            tmp_path,
            batch_size=1,
            max_errors=allowed,
            executor=executor and executor(),
        )
    assert len((tmp_path / "errors").read_text().splitlines()) == allowed + 1
    assert run(numbered(40, bad), tmp_path, max_errors=10).failed == sorted(bad)


def test_max_errors_without_errors_that_count():
    with pytest.raises(SettingsError, match="max_errors needs on_error"):
        build_settings(read_settings(overrides='{"max_errors": 3}'))


class TestTheCommand:
    def predict(self, archive, folder, inputs, *flags):
        lines = [i if isinstance(i, str) else json.dumps(i) for i in inputs]
        (folder / "input").write_bytes(
            b"".join(line.encode("utf-8", "surrogateescape") + b"\n" for line in lines)
        )
        output = ["--output-file", folder / "output", "--batch-size", 4]
        with command(archive, folder / "input", *output, *flags, folder=folder) as running:
            running.wait()
        return running

    def test_skip(self, archive, tmp_path):
        inputs = numbered(12, {5: "kill", 7: "raise", 9: "text:caf\udce9"})
        errors = tmp_path / "errors.jsonl"
        flags = ["--on-error", "skip", "--errors-file", errors, "--silent"]
        ran = self.predict(archive, tmp_path, inputs, *flags)
        assert ran.status == 3
        assert (tmp_path / "output").read_text() == expected([0, 1, 2, 3, 4, 6, 8, 10, 11])
        records = [json.loads(line) for line in errors.read_text().splitlines()]
        assert [record["line"] for record in records] == [6, 8, 10]
        assert records[2]["type"] == "UnicodeDecodeError"
        assert f"3 failed (see {errors})" in ran.stderr
        assert not (tmp_path / "output.checkpoint").exists()

    def test_without_an_errors_file(self, archive, tmp_path):
        ran = self.predict(archive, tmp_path, numbered(8, {5: "raise"}), "--on-error", "skip")
        assert ran.status == 3 and "1 failed\n" in ran.stderr
        assert ran.stdout.count("prediction: ") == 7

    def test_placeholders_on_the_console(self, archive, tmp_path):
        flags = ["--on-error", "placeholder"]
        ran = self.predict(archive, tmp_path, numbered(8, {5: "raise"}), *flags)
        assert ran.stdout.count("prediction: ") == 8
        assert ran.stdout.count('prediction:  {"error": {"line": 6, ') == 1

    def test_raise(self, archive, tmp_path):
        ran = self.predict(archive, tmp_path, numbered(12, {5: "raise"}), "--silent")
        assert ran.status == 1
        assert "In a worker, at input line 6: " in ran.stderr
        assert '{"n": 5, "do": "raise"}' in ran.stderr
        assert ran.stderr.endswith("ValueError: the model cannot take 5\n")
        assert (tmp_path / "output").read_text() == expected(range(4))

    def test_raise_when_it_kills(self, archive, tmp_path):
        ran = self.predict(archive, tmp_path, numbered(12, {5: "kill"}), "--silent")
        assert ran.status == 1 and "Traceback" not in ran.stderr
        assert "input line 6" in ran.stderr and '{"n": 5, "do": "kill"}' in ran.stderr

    def test_too_many(self, archive, tmp_path):
        inputs = numbered(40, {n: "raise" for n in range(0, 40, 2)})
        flags = ["--on-error", "skip", "--max-errors", 4, "--silent"]
        ran = self.predict(archive, tmp_path, inputs, *flags)
        assert ran.status == 1 and "Traceback" not in ran.stderr
        assert "which is more than max_errors allows (4)" in ran.stderr

    def test_the_parent_does_not_look_for_garbage_meanwhile(self, archive, tmp_path):
        """In all that AllenNLP imports: the workers would run out of work."""
        line = '{"n": 1, "do": "say whether garbage is looked for"}\n'
        (tmp_path / "input").write_text(line)
        flags = settings(executor_type="in_process")
        with command(archive, tmp_path / "input", *flags, folder=tmp_path) as running:
            assert running.wait() == 0
        assert running.stdout.startswith("False\n")

    def test_in_process(self, archive, tmp_path):
        flags = ["--on-error", "skip", *settings(executor_type="in_process"), "--silent"]
        ran = self.predict(archive, tmp_path, numbered(12, {5: "memory", 6: "raise"}), *flags)
        assert ran.status == 3
        assert (tmp_path / "output").read_text() == expected([0, 1, 2, 3, 4, 7, 8, 9, 10, 11])
