"""The choice among measurements, and the command."""

import json

import pytest

from allennlp_parallel_predict.commands.tune import choose, jsonnet, render
from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.messages import BatchKind
from allennlp_parallel_predict.pipeline.tuner import Candidate, Measurement, Tuner
from allennlp_parallel_predict.settings import build_settings, read_settings

pytestmark = pytest.mark.timeout(90)


def measurement(*rates, same=True, memory=100.0, workers=2):
    return Measurement(Candidate(workers, 1, 8), rates, memory, same)


class TestChoice:
    def ranked(self, *measurements):
        tuner = Tuner(None, [], BatchKind.LINES, 1)
        tuner.measurements = {
            one.candidate._replace(batch_size=n): one for n, one in enumerate(measurements, 1)
        }
        return tuner.ranked()

    def test_as_fast_with_the_same_bytes_is_better(self):
        fast, same, slow = measurement(100, same=False), measurement(99), measurement(90)
        assert self.ranked(slow, fast, same) == [same, fast, slow]

    def test_as_fast_with_less_memory_is_better(self):
        large, small = measurement(100, memory=9.0), measurement(99, memory=2.0)
        assert self.ranked(large, small) == [small, large]

    def test_keep_bytes(self):
        differ, same = measurement(100, same=False), measurement(50)
        assert choose([differ, same], False) == [differ, same]
        assert choose([differ, same], True) == [same, differ]
        with pytest.raises(SettingsError, match="raise the --budget"):
            choose([differ], True)
        with pytest.raises(SettingsError, match="nothing was predicted"):
            choose([measurement(0.0)], False)

    def test_the_table_and_the_file(self, tmp_path):
        best = measurement(1234.5)
        predict = Measurement(Candidate(1, 2, 8, is_predict=True), (617.25,), 1.0, False)
        text = render([best, measurement(10, same=None)], predict)
        assert "1,234.5" in text and "predict's" in text and "?" in text and "2.00" in text
        assert text.splitlines()[1].split()[:4] == ["predict", "1", "2", "8"]
        assert "warning" not in text
        assert "differ by 50%" in render([measurement(100, 50)])
        path = tmp_path / "pool.jsonnet"
        path.write_text(jsonnet(best))
        settings = build_settings(read_settings(str(path)))
        assert (settings.executor.num_workers, settings.batching.batch_size) == (2, 8)


class TestCommand:
    def test_a_real_archive(self, archives, parallel_predict, tmp_path):
        archive_file = archives("seq2seq")
        lines = [{"source": "the dog ran " * (n % 3 + 1)} for n in range(60)]
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        flags = ["--predictor", "seq2seq", "--budget", "4", "--output", "pool.jsonnet"]
        command = ["parallel-tune", archive_file, "in.jsonl", *flags]
        ran = parallel_predict.run(command, cwd=str(tmp_path))
        assert ran.status == 0, ran.stderr[-2000:]
        assert b"best" in ran.stdout and b"workers" in ran.stdout
        assert ran.stdout.splitlines()[1].split()[0] == b"predict"
        use = ["parallel-predict", archive_file, "in.jsonl", "--predictor", "seq2seq", "--silent"]
        use += ["--output-file", "out.jsonl", "--parallel-config", "pool.jsonnet"]
        used = parallel_predict.run(use, output=tmp_path / "out.jsonl", cwd=str(tmp_path))
        assert used.status == 0 and used.output.count(b"\n") == 60

    @pytest.mark.parametrize(
        "output, message",
        [
            ("no/pool.jsonnet", "there is no folder no"),
            (".", "cannot write .: it is a folder"),
            ("in.jsonl", "--output in.jsonl is the same file as the input"),
        ],
    )
    def test_an_output_that_cannot_be_is_said_at_once(
        self, parallel_predict, tmp_path, output, message
    ):
        (tmp_path / "in.jsonl").write_text('{"source": "the dog"}\n')
        command = ["parallel-tune", "no.tar.gz", "in.jsonl", "--output", output]
        ran = parallel_predict.run(command, cwd=str(tmp_path))
        assert ran.status and message in ran.explanation
        assert (tmp_path / "in.jsonl").read_text() == '{"source": "the dog"}\n'

    def test_nothing_to_predict(self, archives, parallel_predict, tmp_path):
        (tmp_path / "empty").write_text("\n")
        command = ["parallel-tune", archives("seq2seq"), str(tmp_path / "empty")]
        ran = parallel_predict.run([*command, "--predictor", "seq2seq"])
        assert ran.status and "nothing to predict" in ran.message

    def test_an_input_that_only_its_reader_can_open(self, archives, parallel_predict, tmp_path):
        """Whether it is a table is a question about files that the predictor reads."""
        (tmp_path / "empty").write_text("")
        text = {"type": "text_classification_json", "tokenizer": "whitespace"}
        reader = {"dataset_reader": {"type": "interleaving", "readers": {"a": text}}}
        command = ["parallel-tune", archives("text_classifier"), '{"a": "empty"}']
        command += ["--use-dataset-reader", "-o", json.dumps(reader)]
        ran = parallel_predict.run(command, cwd=str(tmp_path))
        assert ran.status and "nothing to predict" in ran.message
