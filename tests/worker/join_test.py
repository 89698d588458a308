"""`--keep-input`, `--id-field` and `--output-fields`, by the command and real workers."""

import json
import signal

import pytest

from tests.fixtures import join_predictors  # noqa: F401  (registers them)
from tests.support.faults import (
    as_line,
    command,
    numbered,
    settings,
    wait_until,
)

pytestmark = pytest.mark.timeout(90)


def run(archive, folder, inputs, *flags, predictor="joined", status=0):
    (folder / "in").write_text("".join(map(as_line, inputs)))
    flags = ["--output-file", folder / "out", "--batch-size", 4, "--num-workers", 2, *flags]
    with command(
        archive, folder / "in", *flags, "--predictor", predictor, folder=folder
    ) as running:
        assert running.wait() == status, running.stderr
    return running


def outputs(folder):
    return [json.loads(line) for line in (folder / "out").read_text().splitlines()]


def with_ids(count, faults=None):
    return [
        {"id": f"ü{n}", **item} if isinstance(item, dict) else item
        for n, item in enumerate(numbered(count, faults))
    ]


def test_without_flags_nothing_is_joined(archive, tmp_path):
    run(archive, tmp_path, with_ids(1))
    assert (tmp_path / "out").read_text() == (
        '{"n": 0, "pad": "", "beams": [{"score": 0.5, "n": 1}, {"score": 0.1, "n": 2}], '
        '"at": {"x": 1}}\n'
    )


def test_keep_input(archive, tmp_path):
    """As it was before the predictor changed it; the other fields and their order stay."""
    inputs = with_ids(10)
    ran = run(archive, tmp_path, inputs, "--keep-input")
    assert [output.pop("input") for output in outputs(tmp_path)] == inputs
    assert [list(output) for output in outputs(tmp_path)] == 10 * [
        ["n", "pad", "beams", "at", "input"]
    ]
    assert [output["n"] for output in outputs(tmp_path)] == list(range(10))
    assert (tmp_path / "out").read_text().splitlines() == [
        line[len("prediction:  ") :]
        for line in ran.stdout.splitlines()
        if line.startswith("prediction:  ")
    ]
    assert 'input 0:  {"id": "\\u00fc0", "seen": 0}' in ran.stdout  # as `predict` shows it


def test_id_and_output_fields(archive, tmp_path):
    fields = ["--id-field", "id", "--output-fields", "at.x,beams.score,n"]
    run(archive, tmp_path, with_ids(6), "--silent", *fields)
    assert outputs(tmp_path) == [
        {"at": {"x": 1}, "beams": [{"score": 0.5}, {"score": 0.1}], "n": n, "id": f"ü{n}"}
        for n in range(6)
    ]


def test_several_fields_of_one_list(archive, tmp_path):
    run(archive, tmp_path, with_ids(1), "--silent", "--output-fields", "beams.n,beams.score")
    assert outputs(tmp_path) == [{"beams": [{"n": 1, "score": 0.5}, {"n": 2, "score": 0.1}]}]


def test_with_a_dataset_reader(archive, tmp_path):
    (tmp_path / "out").write_text("")
    flags = ["--use-dataset-reader", "--silent", "--output-fields", "n"]
    run(archive, tmp_path, ["3", "4"], *flags)
    assert outputs(tmp_path) == [{"n": 3}, {"n": 4}]
    ran = run(archive, tmp_path, ["3"], "--use-dataset-reader", "--keep-input", status=1)
    assert "--keep-input and --id-field need inputs" in ran.stderr


def test_what_an_overridden_dump_line_writes_is_parsed(archive, tmp_path):
    flags = ["--id-field", "id", "--silent"]
    run(archive, tmp_path, with_ids(2), *flags, predictor="joined-compact")
    assert (tmp_path / "out").read_text() == (
        '{"number": 0, "id": "\\u00fc0"}\n{"number": 1, "id": "\\u00fc1"}\n'
    )


@pytest.mark.parametrize("predictor", ["joined-list", "joined-text"])
def test_an_output_that_is_no_object(archive, tmp_path, predictor):
    ran = run(archive, tmp_path, with_ids(3), "--keep-input", predictor=predictor, status=1)
    assert "Traceback" not in ran.stderr
    assert "need outputs that are JSON objects" in ran.stderr
    assert ran.stderr.splitlines()[-1].startswith("In a worker, at input line 1: ")


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--id-field", "key"], "--id-field key: the input has no such field"),
        (["--output-fields", "n,at.y"], "--output-fields at.y: there is no 'y' in what has x"),
        (["--output-fields", "n.x"], "--output-fields n.x: there is no 'x' in what is no object"),
        (
            ["--output-fields", "n,"],
            "--output-fields must be names with commas between them, but it is 'n,'",
        ),
        (["--id-field", "pad"], "the output has a field 'pad' of its own"),
    ],
)
def test_a_field_that_does_not_exist_or_twice(archive, tmp_path, flags, message):
    ran = run(archive, tmp_path, numbered(1, {0: {"pad": 3}}), "--silent", *flags, status=1)
    assert message in ran.stderr and "Traceback" not in ran.stderr


def test_only_the_inputs_without_the_field_fail(archive, tmp_path):
    inputs = with_ids(9, {3: "raise", 5: "text:not JSON"})
    del inputs[6]["id"]
    errors = ["--on-error", "placeholder", "--errors-file", tmp_path / "errors", "--silent"]
    run(archive, tmp_path, inputs, "--id-field", "id", *errors, status=3)
    found = [output.get("id") or output["error"]["type"] for output in outputs(tmp_path)]
    join_error = "allennlp_parallel_predict.common.errors.JoinError"
    json_error = "json.decoder.JSONDecodeError"
    failed = ["ValueError", "ü4", json_error, join_error]
    assert found == ["ü0", "ü1", "ü2", *failed, "ü7", "ü8"]


def test_resume_is_only_of_the_same_join(archive, tmp_path):
    stop = {"do": "sleep", "seconds": 100, "once": str(tmp_path / "once")}
    (tmp_path / "in").write_text("".join(map(as_line, with_ids(20, {10: stop}))))
    flags = ["--predictor", "joined", "--silent", "--output-file", tmp_path / "out"]
    flags += settings(batching_batch_size=2, executor_num_workers=1, checkpoint_interval=0)
    join = ["--id-field", "id"]
    with command(archive, tmp_path / "in", *flags, *join, folder=tmp_path) as ran:
        wait_until(lambda: (tmp_path / "once").exists())
        ran.signal(signal.SIGINT)
        assert ran.wait() == 130
    assert 0 < (tmp_path / "out").stat().st_size
    with command(
        archive, tmp_path / "in", "--resume", "--keep-input", *flags, *join, folder=tmp_path
    ) as ran:
        assert ran.wait() == 1
    assert "another --keep-input (false then, true now)" in ran.stderr
    with command(archive, tmp_path / "in", "--resume", *flags, *join, folder=tmp_path) as ran:
        assert ran.wait() == 0, ran.stderr
    assert [output["id"] for output in outputs(tmp_path)] == [f"ü{n}" for n in range(20)]
