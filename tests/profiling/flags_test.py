"""The flags of a profile, and the command that compares two."""

import json
import subprocess
import sys

import pytest

from allennlp_parallel_predict.common import stages

pytestmark = pytest.mark.timeout(90)


class TestCommand:
    def test_a_real_archive(self, archives, parallel_predict, tmp_path):
        archive_file = archives("tagger")
        lines = [{"sentence": "The dog ran . " * (n % 4 + 1)} for n in range(30)]
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        flags = ["--predictor", "sentence_tagger", "--batch-size", "4", "--silent"]
        flags += ["--predictor-args", json.dumps({"language": str(_spacy(archive_file))})]
        flags += ["--num-workers", "2", "--output-file", "out.jsonl"]
        command = ["parallel-predict", archive_file, "in.jsonl", *flags]
        output = tmp_path / "out.jsonl"
        plain = parallel_predict.run(command, output=output, cwd=str(tmp_path))
        assert plain.status == 0 and "Profile" not in plain.stderr
        names = ["--profile", "p.json", "--profile-trace", "t.json", "--profile-plot", "p.svg"]
        ran = parallel_predict.run(command + names, output=output, cwd=str(tmp_path))
        assert (ran.status, ran.output) == (0, plain.output), ran.stderr[-2000:]
        assert "Profile: 30 lines" in ran.stderr and "Diagnosis" in ran.stderr
        report = json.loads((tmp_path / "p.json").read_text())
        assert {stages.EXTRACTING, stages.LOADING} <= set(report["parent"]["stages"])
        assert report["stages"][stages.FORWARD] > 0 and report["padding"]["share"] > 0.2
        assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
        assert (tmp_path / "p.svg").stat().st_size > 10_000
        ran = parallel_predict.run([*command, "--profile"], output=output, cwd=str(tmp_path))
        assert (ran.status, ran.output) == (0, plain.output), ran.stderr[-2000:]
        assert "Profile: 30 lines" in ran.stderr
        # The short form, as the README's `allennlp parallel-compare` is run below.
        compared = [sys.executable, "-m", "allennlp_parallel_predict", "compare"]
        compared += [str(tmp_path / "p.json")] * 2
        text = subprocess.run(compared, stdout=subprocess.PIPE, check=True).stdout.decode()
        assert "forward" in text and "1.00" in text
        same = parallel_predict.run(["parallel-compare", *compared[-2:]])
        assert same.status == 0 and same.stdout.decode() == text

    def test_what_cannot_be_is_said_before_the_run(self, parallel_predict, tmp_path):
        wrong = parallel_predict.run(["parallel-predict", "--profile", "a.tar.gz", "in.jsonl"])
        assert wrong.status == 2 and "'a.tar.gz' is no FILE.json" in wrong.stderr
        command = ["parallel-predict", "a.tar.gz", "in.jsonl"]
        wrong = parallel_predict.run([*command, "--profile", str(tmp_path / "no" / "p.json")])
        assert wrong.status and "there is no folder" in wrong.explanation
        wrong = parallel_predict.run([*command, "--profile-plot", "p.gif"])
        assert wrong.status and "not p.gif" in wrong.message


def _spacy(archive_file):
    from pathlib import Path

    return Path(archive_file).parent / "spacy"
