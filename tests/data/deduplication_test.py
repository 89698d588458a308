"""`--deduplicate`: identical lines are predicted once, and each has its own place and number."""

import json
import random
import signal

import pytest

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data import deduplication
from allennlp_parallel_predict.data.batching import BucketBatching, InOrderBatching
from allennlp_parallel_predict.data.deduplication import DeduplicatedBatching
from tests.support.faults import (
    ListSource,
    as_line,
    command,
    expected,
    faulty_archive,
    numbered,
    run,
    settings,
)
from tests.support.running import allennlp

pytestmark = pytest.mark.timeout(120)


def deduplicated(batching=None, state_change=lambda: None):
    return DeduplicatedBatching(batching or InOrderBatching(1), state_change)


def repeated(count, different, seed=0):
    rng = random.Random(seed)
    return [rng.randrange(different) for _ in range(count)]


def predict(archive, folder, inputs, *flags, status=0):
    (folder / "in").write_text("".join(map(as_line, inputs)))
    flags = ["--output-file", folder / "out", *flags]
    with command(archive, folder / "in", *flags, folder=folder) as ran:
        assert ran.wait() == status, ran.stderr
    return ran


@pytest.mark.parametrize("inner", [InOrderBatching(1), InOrderBatching(3), BucketBatching(3, 8)])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 60])
def test_every_input_is_there_once_or_a_copy(monkeypatch, inner, count):
    monkeypatch.setattr(deduplication, "_WINDOW", 8)
    batching = deduplicated(inner)
    numbers = repeated(count, 5)
    source = ListSource([{"n": n} for n in numbers])
    last_of_windows = [*range(7, count, 8), *([count - 1] if count % 8 else [])]
    seen, ends, furthest = [], [], -1
    for number, batch in enumerate(batching.batches(source, source.kind)):
        assert batch.number == number and len(batch.values) <= inner.batch_size
        seen += [(position // 8, numbers[position]) for position in batch.positions]
        furthest = max(furthest, batching.last_position(batch))
        ends += [furthest] if batch.ends_window else []
        assert source.read - 1 - batch.positions[0] < 8  # nothing is read far ahead
    assert len(seen) == len(set(seen)) == count - batching.left_out
    assert set(seen) == {(position // 8, n) for position, n in enumerate(numbers)}
    assert ends == last_of_windows  # where a run may go on


@pytest.mark.parametrize("batch_size, workers", [(1, 2), (4, 1)])
def test_the_output_is_that_of_all_inputs(tmp_path, monkeypatch, batch_size, workers):
    monkeypatch.setattr(deduplication, "_WINDOW", 16)
    numbers = repeated(200, 30)
    batching = deduplicated(InOrderBatching(batch_size))
    inputs = [{"n": n} for n in numbers]
    ran = run(inputs, tmp_path, batch_size, batching=batching, num_workers=workers)
    assert ran.output == expected(numbers)
    assert ran.written.positions == ran.written.predictions == 200
    assert batching.left_out == 200 - sum(len(set(numbers[i : i + 16])) for i in range(0, 200, 16))


def test_copies_of_a_failure_fail_under_their_own_numbers(tmp_path):
    once = {"do": "raise", "once": str(tmp_path / "once")}
    inputs = numbered(4, {2: once})
    inputs = [*inputs, inputs[2], inputs[1], "no JSON", inputs[2], "no JSON"]
    ran = run(inputs, tmp_path, batching=deduplicated())
    assert ran.failed == [2, 4, 6, 7, 8]  # the fault is there only once, so it was tried once
    assert ran.errors[1]["input"] == ran.errors[0]["input"]
    assert ran.output == expected([0, 1, 3, 1])


def test_the_command(archive, tmp_path):
    numbers = repeated(50, 9)
    inputs = [{"n": n} for n in numbers]
    plain = predict(archive, tmp_path, inputs)
    console, output = plain.stdout, (tmp_path / "out").read_bytes()
    flags = ["--deduplicate", "--summary", tmp_path / "summary.json"]
    ran = predict(archive, tmp_path, inputs, *flags)
    assert (ran.stdout, (tmp_path / "out").read_bytes()) == (console, output)
    left_out = 50 - len(set(numbers))
    assert json.loads((tmp_path / "summary.json").read_text())["deduplicated"] == left_out
    assert f"{left_out} identical to others and not predicted again" in ran.stderr


def test_an_interrupted_run_goes_on(archive, tmp_path):
    numbers = repeated(6000, 300)  # more of a window than can be in work at once
    inputs = [{"n": n} for n in numbers]
    inputs[5000] = {"n": 1000, "do": "hang", "once": str(tmp_path / "once")}
    flags = ["--silent", "--deduplicate", *settings(checkpoint_interval=0)]
    (tmp_path / "in").write_text("".join(map(as_line, inputs)))
    flags += ["--output-file", tmp_path / "out"]
    with command(archive, tmp_path / "in", *flags, folder=tmp_path) as ran:
        while not (tmp_path / "once").exists():
            assert not ran.has_ended(), ran.stderr
        ran.signal(signal.SIGINT)
        assert ran.wait() == 130, ran.stderr
    assert (tmp_path / "out.checkpoint").exists()
    with command(archive, tmp_path / "in", *flags, "--resume", folder=tmp_path) as ran:
        assert ran.wait() == 0, ran.stderr
    numbers[5000] = 1000
    assert (tmp_path / "out").read_text() == expected(numbers)
    assert not ran.stderr.startswith("parallel-predict: 6,000 lines")  # some were there already


def test_a_model_that_keeps_state_is_refused(tmp_path):
    stateful = faulty_archive(tmp_path, keeps_state=True)
    for workers in (1, 2):
        inputs = [{"n": n % 5} for n in range(20)]
        flags = ["--deduplicate", "--silent", "--num-workers", workers]
        ran = predict(stateful, tmp_path, inputs, *flags, status=1)
        assert "run it without --deduplicate" in ran.stderr.splitlines()[-1]
        assert (tmp_path / "out").read_bytes() == b""
    predict(stateful, tmp_path, numbered(20), *flags)  # there is nothing to leave out


def test_it_needs_lines(archive, tmp_path):
    flags = ["--deduplicate", "--use-dataset-reader"]
    ran = predict(archive, tmp_path, numbered(2), *flags, status=1)
    assert "not both" in ran.stderr.splitlines()[-1]


def test_a_predictor_that_numbers_its_inputs_is_refused(archives, tmp_path):
    (tmp_path / "in").write_text('{"passage": "Mary left .", "question": "Who left?"}\n')
    flags = ["--deduplicate", "--silent", "--output-file", tmp_path / "out"]
    with pytest.raises(SettingsError, match="numbers its inputs"):
        allennlp(
            list(
                map(str, ["parallel-predict", archives("transformer_qa"), tmp_path / "in", *flags])
            )
        )
