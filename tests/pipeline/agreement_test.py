"""How far a precision agrees with fp32: with the trained model of the demo, and bf16 on CPUs."""

import json
from pathlib import Path

import pytest
from allennlp.commands import main  # noqa: F401  (the forked commands need not import it)

from allennlp_parallel_predict.common.messages import Failure
from allennlp_parallel_predict.common.remote_errors import RemoteError
from allennlp_parallel_predict.pipeline.agreement import Agreement, Precision
from tests.support.faults import Command, as_line, command, faulty_archive, numbered, settings

pytestmark = pytest.mark.timeout(240)
MODEL = Path(__file__).parent.parent.parent / "examples" / "g2p"
COUNT = 60


def run(folder, *flags, source=None, stdin=None, status=0, archive=MODEL / "model.tar.gz", **more):
    words = folder / "words.jsonl"
    lines = (MODEL / "words.jsonl").read_text().splitlines(keepends=True)
    words.write_text("".join(lines[:COUNT]))
    overrides = {"precision": "bf16", "executor.num_workers": 1, "batching.batch_size": 20, **more}
    arguments = ["parallel-predict", archive, source or words, "--output-file", folder / "out"]
    arguments += ["--silent", "--include-package", "allennlp_models.generation"]
    arguments += ["--parallel-overrides", json.dumps(overrides), *flags]
    ran = Command([*map(str, arguments)], folder, stdin)
    assert ran.wait(200) == status, ran.stderr
    return ran


def last_line(ran):
    assert "Traceback" not in ran.stderr
    return ran.stderr.splitlines()[-1]


def test_a_precision_that_agrees_too_little_ends_the_run(tmp_path):
    (tmp_path / "out").write_text("of an earlier run\n")
    ran = run(tmp_path, "--overwrite", status=1, precision_min_agreement=1.0)
    message = last_line(ran)
    assert "bf16: 9" in message and "measured on 60 inputs" in message
    assert "precision_min_agreement asks for 100.00%" in message
    assert (tmp_path / "out").read_text() == "of an earlier run\n"
    assert not (tmp_path / "out.checkpoint").exists()


def test_a_run_in_bf16_and_what_it_reports(tmp_path):
    flags = ["--summary", tmp_path / "summary.json", "--profile", tmp_path / "profile.json"]
    more = {"precision_min_agreement": 0.8, "precision_sample": 30, "executor.num_workers": 2}
    ran = run(tmp_path, *flags, **more)
    outputs = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert len(outputs) == COUNT
    agreement = json.loads((tmp_path / "summary.json").read_text())["agreement"]
    assert 0.8 < agreement["labels"] < 1 and agreement["inputs"] == 30
    assert agreement["field"] in ("predictions", "predicted_tokens") and agreement["failed"] == 0
    assert 1e-4 < agreement["largest_difference"] < 1
    assert 0 < agreement["equal_sequences"] < agreement["sequences"]
    assert f"; bf16: {agreement['labels']:.2%} of the labels as in fp32" in ran.stderr
    profile = json.loads((tmp_path / "profile.json").read_text())
    assert profile["agreement"] == agreement and profile["precision"] == "bf16"
    assert profile["lines"] == COUNT and "in_order, bf16" in ran.stderr
    exact = run(tmp_path, "--overwrite", precision="fp32")
    expected = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert "fp32" not in exact.stderr
    differences = [
        abs(one["class_log_probabilities"][0] - other["class_log_probabilities"][0])
        for one, other in zip(outputs, expected)
    ]
    assert 1e-5 < max(differences) < 0.5  # each line is in its place, and was computed in bf16


def test_without_a_sample_nothing_is_measured(tmp_path):
    with open(tmp_path / "in", "w+") as file:
        file.write((MODEL / "words.jsonl").read_text().splitlines()[0] + "\n")
        file.seek(0)
        refused = run(tmp_path, source="-", stdin=file.fileno(), status=1)
        assert "precision_sample to 0" in last_line(refused)
        file.seek(0)
        ran = run(tmp_path, source="-", stdin=file.fileno(), precision_sample=0)
    assert last_line(ran).endswith("; bf16: agreement with fp32 was not measured")


def test_a_dry_run_measures_it_too(tmp_path):
    ran = run(tmp_path, "--dry-run", precision_sample=20, precision_min_agreement=0.5)
    assert "measured on 20 inputs" in ran.stdout and '"precision": "bf16"' in ran.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "more, message",
    [
        ({"precision": "fp16"}, "precision 'fp16' needs a GPU"),
        ({"precision": "tf32"}, "precision 'tf32' needs a GPU"),
        ({"precision": "bf61"}, "precision must be one of fp32, tf32, fp16, bf16"),
    ],
)
def test_what_cannot_be_is_said_before_the_archive_is_looked_for(tmp_path, more, message):
    ran = run(tmp_path, status=1, archive="/no/such/archive", **more)
    assert message in last_line(ran) and "archive" not in last_line(ran)


def test_inputs_that_fail_in_both_are_left_out(tmp_path):
    archive = faulty_archive(tmp_path)
    (tmp_path / "in").write_text("".join(map(as_line, numbered(12, {3: "raise"}))))
    flags = ["--output-file", tmp_path / "out", "--silent", "--on-error", "skip"]
    flags += settings(precision="bf16", executor_num_workers=1)
    with command(archive, tmp_path / "in", *flags, folder=tmp_path) as ran:
        assert ran.wait() == 3
    assert "bf16: 100.00% of the labels as in fp32" in ran.stderr
    assert "measured on 11 inputs" in ran.stderr


class Outcome:
    def __init__(self, outputs, failures=()):
        self.outputs = outputs
        self.failures = {n: Failure(0, RemoteError.of(error)) for n, error in failures}


def test_inputs_that_fail_only_in_the_precision_count():
    expected = Outcome(
        {0: '{"label": "a"}\n', 1: '{"label": "b"}\n', 3: "no JSON"}, [(3, KeyError())]
    )
    found = Outcome({0: '{"label": "a"}\n', 3: "no JSON"}, [(2, TypeError("no")), (3, KeyError())])
    agreement = Agreement(Precision.BF16, expected, found)
    assert agreement.figures["labels"] == 0.5 and agreement.figures["failed"] == 1
    assert "1 inputs fail that do not in fp32 (TypeError: no)" in str(agreement)
