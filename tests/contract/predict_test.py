"""
What `predict` does besides predicting: inputs, flags, console, unusual predictors, errors. Each
test runs the real thing and `parallel-predict`, and compares all that a user can see but stderr.
"""

import argparse
import bz2
import functools
import gzip
import http.server
import json
import lzma
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any, Callable, List, Optional

import pytest
import torch

from tests.support.running import PARALLEL_PREDICT, PREDICT, Outcome, assert_same, call

pytestmark = pytest.mark.timeout(150)

SENTENCES = ["a", "Mary sees the dog", "café 🙂", "the cat ran away .", "b c", "win", "Rome it"]
SPAWN = '{"executor.start_method": "spawn"}'
PACKAGE = ["--include-package", "tests.fixtures.contract_predictors"]


def json_lines(sentences: List[str]) -> str:
    return "".join(json.dumps({"sentence": sentence}) + "\n" for sentence in sentences)


LINES = json_lines(SENTENCES)
FAILING = json_lines(SENTENCES[:5] + ["fail"] + SENTENCES[5:])


class Both:
    """Runs both commands on one input and compares them; gives what `predict` did."""

    def __init__(self, predict: Callable[..., Outcome], ours: Callable[..., Outcome], folder: Path):
        self.predict, self.ours, self.folder = predict, ours, folder
        self.output = folder / "output"
        self.before: Optional[bytes] = None  # what the output file holds already

    def run(self, command: str, archive: str, source: str, *flags: str, **more: Any) -> Outcome:
        if self.output.exists():
            self.output.unlink()
        if self.before is not None:
            self.output.write_bytes(self.before)
        runner = self.predict if command == PREDICT else self.ours
        return runner([command, archive, source, *flags], output=self.output, **more)

    def __call__(
        self,
        archive: str,
        text: Any,
        *flags: str,
        name: str = "input.jsonl",
        to_file: bool = True,
        workers: int = 2,
        start_method: str = "fork",
        **more: Any,
    ) -> Outcome:
        path = self.folder / name
        if text is not None:
            path.write_bytes(text.encode() if isinstance(text, str) else text)
        source = name if "://" in name or name == "-" else str(path)
        flags = (*flags, "--output-file", str(self.output)) if to_file else flags
        ours = [] if PARALLEL_PREDICT == PREDICT else ["--num-workers", str(workers)]
        if start_method == "spawn" and ours:
            ours += ["--parallel-overrides", SPAWN]
        theirs = self.run(PREDICT, archive, source, *flags, **more)
        assert_same(self.run(PARALLEL_PREDICT, archive, source, *flags, *ours, **more), theirs)
        return theirs


@pytest.fixture
def both(predict, parallel_predict, tmp_path) -> Both:
    return Both(predict.run, parallel_predict.run, tmp_path)


@pytest.fixture
def here(tmp_path) -> Both:
    """Both commands in the process of the tests, which knows classes that no file holds."""
    return Both(call, call, tmp_path)


@pytest.fixture
def classifier(archives) -> str:
    return archives("text_classifier")


def keys(outcome: Outcome) -> set:
    assert outcome.output is not None
    return set().union(*(json.loads(line) for line in outcome.output.splitlines()))


class TestInput:
    @pytest.mark.parametrize("silent", [True, False])
    @pytest.mark.parametrize("text", ["", "\n", "\n \t\n\u2003\n\x1c\n"], ids=["0", "1", "spaces"])
    def test_nothing_to_predict(self, both, classifier, text, silent) -> None:
        theirs = both(classifier, text, *["--silent"] * silent)
        assert (theirs.status, theirs.output, theirs.stdout) == (0, b"", b"")

    @pytest.mark.parametrize("batch_size", ["1", "3"])
    @pytest.mark.parametrize("newline", ["\n", "\r\n", "\r", "\n\n", "\n\u2003\x1c\n"])
    def test_line_ends(self, both, classifier, newline, batch_size) -> None:
        text = newline.join(LINES.splitlines())
        theirs = both(classifier, text, "--batch-size", batch_size)
        assert theirs.output.count(b"\n") == len(SENTENCES)

    def test_letters_that_only_look_like_line_ends(self, both, classifier) -> None:
        sentences = ["a\u2028b\u2029c\u0085d", "second"]
        text = "".join(json.dumps({"sentence": s}, ensure_ascii=False) + "\n" for s in sentences)
        assert both(classifier, text).output.count(b"\n") == 2

    @pytest.mark.parametrize("flags", [[], ["--batch-size", "3"]], ids=["1", "3"])
    def test_stdin(self, both, classifier, flags) -> None:
        theirs = both(classifier, None, *flags, name="-", stdin=LINES.encode() + b"\n\r\n")
        assert theirs.output.count(b"\n") == len(SENTENCES)

    @pytest.mark.parametrize("name, pack", [("i.gz", gzip), ("i.bz2", bz2), ("i.xz", lzma)])
    def test_compressed(self, both, classifier, name, pack) -> None:
        theirs = both(classifier, pack.compress(LINES.encode()), name=name)
        assert theirs.output.count(b"\n") == len(SENTENCES)

    def test_url(self, both, classifier, tmp_path) -> None:
        (tmp_path / "lines.jsonl").write_text(LINES)
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                url = f"http://127.0.0.1:{server.server_port}/lines.jsonl"
                both.run(PREDICT, classifier, url)  # the one that loads it shows how it does
                theirs = both(classifier, None, name=url)
            finally:
                server.shutdown()
                thread.join()
        assert theirs.output.count(b"\n") == len(SENTENCES)

    def test_archive_as_folder(self, both, classifier, tmp_path) -> None:
        with tarfile.open(classifier) as file:
            file.extractall(tmp_path / "archive")
        assert both(str(tmp_path / "archive"), LINES).output

    @pytest.mark.parametrize("batch_size", ["7", "100"])
    def test_batch_as_large_as_the_input(self, both, classifier, batch_size) -> None:
        theirs = both(classifier, LINES, "--batch-size", batch_size)
        assert theirs.output.count(b"\n") == len(SENTENCES)

    def test_more_workers_than_lines(self, both, classifier) -> None:
        assert both(classifier, json_lines(["one"]), workers=3).output.count(b"\n") == 1


class TestFlags:
    def test_no_output_file(self, both, classifier) -> None:
        theirs = both(classifier, LINES, to_file=False)
        assert theirs.output is None and b"input 6:  " in theirs.stdout

    def test_silent(self, both, classifier) -> None:
        theirs = both(classifier, LINES, "--silent", "--batch-size", "2")
        assert keys(theirs) == {"label", "logits", "probs", "tokens", "token_ids"}
        assert theirs.stdout == b""

    def test_silent_without_an_output_file(self, both, classifier) -> None:
        theirs = both(classifier, LINES, "--silent", to_file=False)
        assert theirs.status == 0 and b"Exiting early" in theirs.stdout

    def test_silent_without_an_output_file_and_an_archive(self, both) -> None:
        assert both("missing.tar.gz", LINES, "--silent", to_file=False).status == 1

    def test_weights_file(self, both, classifier, tmp_path) -> None:
        with tarfile.open(classifier) as file:
            file.extract("weights.th", tmp_path)
        weights = torch.load(tmp_path / "weights.th")
        torch.save({name: value + 1 for name, value in weights.items()}, tmp_path / "other.th")
        theirs = both(classifier, LINES, "--weights-file", str(tmp_path / "other.th"))
        assert theirs.output != both(classifier, LINES).output

    @pytest.mark.parametrize("flag", ["-o", "--overrides"])
    def test_overrides(self, both, classifier, flag) -> None:
        overrides = '{"dataset_reader.max_sequence_length": 1}'
        theirs = both(classifier, LINES, flag, overrides)
        assert all(len(json.loads(line)["tokens"]) == 1 for line in theirs.output.splitlines())

    @pytest.mark.parametrize("batch_size", ["1", "3"])
    def test_predictor_and_its_arguments(self, both, classifier, batch_size) -> None:
        """Seven lines by three: a group of one goes to `predict_json`, another to the batch."""
        flags = [*PACKAGE, "--batch-size", batch_size, "--predictor-args", '{"tag": "fish"}']
        theirs = both(classifier, LINES, *flags, "--predictor", "contract-explicit")
        results = [json.loads(line) for line in theirs.output.splitlines()]
        assert {result["tag"] for result in results} == {"fish"}
        groups = [result["group"] for result in results]
        assert groups == ([1] * 7 if batch_size == "1" else [3] * 6 + [1])

    def test_file_friendly_logging(self, both, classifier) -> None:
        assert both(classifier, LINES, "--file-friendly-logging").status == 0

    @pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
    def test_cuda_device_without_a_gpu(self, both, classifier) -> None:
        theirs = both(classifier, LINES, "--cuda-device", "0")
        assert theirs.error.endswith("ConfigurationError") and "GPU" in theirs.message

    @pytest.mark.parametrize(
        "arguments", [[], ["archive"], ["archive", "input", "--batch-size", "x"]], ids=len
    )
    def test_wrong_usage(self, predict, parallel_predict, arguments) -> None:
        theirs = predict.run([PREDICT, *arguments])
        assert theirs.status == 2
        assert_same(parallel_predict.run([PARALLEL_PREDICT, *arguments]), theirs)


class TestDatasetReader:
    TEXT = "".join(json.dumps({"text": s, "label": "long"}) + "\n" for s in SENTENCES)
    READER = "--use-dataset-reader"

    @pytest.mark.parametrize("batch_size", ["1", "3"])
    def test_instances(self, both, classifier, batch_size) -> None:
        theirs = both(classifier, self.TEXT, self.READER, "--batch-size", batch_size)
        # The loss of a batch is one number: a group of several has none to give.
        assert keys(theirs) >= {"label", "logits", "probs", "tokens", "token_ids", "loss"}

    @pytest.mark.parametrize("choice", [None, "train", "validation"])
    def test_choice(self, both, classifier, choice) -> None:
        flags = ["--dataset-reader-choice", choice] if choice else []
        reader = {"type": "contract-reader", "tokenizer": "whitespace"}
        overrides = json.dumps({"validation_dataset_reader": reader})
        flags += [*PACKAGE, "--overrides", overrides, "--predictor", "contract-reader-name"]
        theirs = both(classifier, self.TEXT, self.READER, *flags)
        expected = "TextClassificationJsonReader" if choice == "train" else "ContractReader"
        assert set(theirs.output.decode().split()) == {expected}

    def test_predictor_that_knows_no_json(self, both, classifier) -> None:
        theirs = both(classifier, LINES, *PACKAGE, "--predictor", "contract-reader-name")
        assert theirs.error == "builtins.NotImplementedError"

    def test_stdin(self, both, classifier) -> None:
        theirs = both(classifier, None, self.READER, name="-", stdin=self.TEXT.encode())
        assert theirs.error.endswith("ConfigurationError") and "stdin" in theirs.message

    def test_empty_file(self, both, classifier) -> None:
        both(classifier, "", self.READER)

    def test_broken_file(self, both, classifier) -> None:
        theirs = both(classifier, self.TEXT + "{", self.READER)
        assert theirs.error == "json.decoder.JSONDecodeError"

    @pytest.mark.parametrize("flags", [["--multitask-head", "first"], []], ids=["json", "no-head"])
    def test_multitask_needs_a_head_and_a_reader(self, both, archives, flags) -> None:
        flags = flags or [self.READER]
        theirs = both(archives("multitask"), self.TEXT, *flags)
        assert theirs.error.endswith("ConfigurationError") and theirs.output == b""

    def test_head_for_a_reader_without_heads(self, both, classifier) -> None:
        theirs = both(classifier, self.TEXT, self.READER, "--multitask-head", "first")
        assert theirs.error.endswith("ConfigurationError")

    def test_unknown_head(self, both, archives) -> None:
        flags = [self.READER, "--multitask-head", "third"]
        assert both(archives("multitask"), self.TEXT, *flags).error == "builtins.KeyError"


@pytest.mark.parametrize("batch_size", ["1", "3"])
class TestPredictors:
    """Unusual ones, from `fixtures/contract_predictors.py`."""

    @pytest.fixture
    def run(self, both, classifier, batch_size) -> Callable[..., Outcome]:
        def run(predictor: str, text: str = LINES, **arguments: Any) -> Outcome:
            flags = [*PACKAGE, "--predictor", "contract-" + predictor, "--batch-size", batch_size]
            return both(classifier, text, *flags, "--predictor-args", json.dumps(arguments))

        return run

    def test_csv(self, run) -> None:
        rows = "".join(f'"{sentence}",neg\r\n' for sentence in SENTENCES)
        assert run("csv", rows).output.count(b"\r\n") == len(SENTENCES)

    @pytest.mark.parametrize("text", ["one\ntwo\n", "no newline", "", "\n", "é\u2028\r🙂\n"])
    def test_dumped_text(self, run, text) -> None:
        assert run("dump", dumped=text).output == len(SENTENCES) * text.encode()

    def test_dumped_text_that_is_none(self, run) -> None:
        assert run("dump", dumped=None).error == "builtins.TypeError"

    def test_dumped_text_that_has_no_bytes(self, run) -> None:
        assert run("dump", dumped="\ud800").error == "builtins.UnicodeEncodeError"

    def test_printing(self, run) -> None:
        assert run("printing").stdout.count(b"loading") == len(SENTENCES)

    def test_changed_inputs(self, run) -> None:
        assert b"MARY" in run("mutating").stdout

    @pytest.mark.parametrize("more", [-1, -3, 2])
    def test_more_or_fewer_results_than_inputs(self, run, more) -> None:
        run("count", more=more)

    def test_lazy_results(self, run) -> None:
        run("lazy")
        # `predict` writes each result before it asks for the next.
        run("lazy", FAILING)

    @pytest.mark.parametrize("odd", [False, True])
    @pytest.mark.parametrize("where", ["load", "predict", "dump"])
    def test_errors_keep_their_type_and_what_was_before(self, run, where, odd) -> None:
        theirs = run("failing", FAILING, where=where, odd=odd)
        assert theirs.error == (
            "tests.fixtures.contract_predictors.OddError" if odd else "builtins.LookupError"
        )
        assert theirs.output.count(b"\n") >= 3

    def test_exit(self, run, batch_size) -> None:
        if batch_size == "1":
            assert run("exiting", FAILING).status == 3

    def test_inputs_that_cannot_be_printed(self, run) -> None:
        theirs = run("unserialisable", json_lines(SENTENCES[:4] + ["stop !"] + SENTENCES[4:]))
        assert theirs.error == "builtins.TypeError" and theirs.output.count(b"\n") == 4


class TestErrors:
    @pytest.mark.parametrize("batch_size", ["1", "3"])
    @pytest.mark.parametrize("line", ["{", "", '{"x": 1}', "[1]", "\ufeff{}"], ids=repr)
    @pytest.mark.parametrize("place", [0, 4])
    def test_lines_that_are_no_input(self, both, classifier, place, line, batch_size) -> None:
        lines = LINES.splitlines()
        lines.insert(place, line)
        theirs = both(classifier, "\n".join(lines), "--batch-size", batch_size)
        assert bool(theirs.error) == bool(line)

    def test_bytes_that_are_no_text(self, both, classifier, tmp_path) -> None:
        """`predict` decodes some lines ahead, how many is no promise: ours may have done more."""
        (tmp_path / "bytes").write_bytes(LINES.encode() + b'{"sentence": "\xff"}\n')
        results = [
            both.run(
                command, classifier, str(tmp_path / "bytes"), "--output-file", str(both.output)
            )
            for command in [PREDICT, PARALLEL_PREDICT]
        ]
        assert {result.error for result in results} == {"builtins.UnicodeDecodeError"}
        assert results[1].output.startswith(results[0].output)

    def test_missing_input(self, both, classifier) -> None:
        theirs = both(classifier, None)
        assert theirs.error == "builtins.FileNotFoundError" and theirs.output == b""

    def test_missing_output_folder(self, both, classifier, tmp_path) -> None:
        flags = ["--output-file", str(tmp_path / "no" / "where")]
        theirs = both(classifier, LINES, *flags, to_file=False)
        assert theirs.error == "builtins.FileNotFoundError"

    @pytest.mark.parametrize(
        "flags",
        [
            ["--predictor", "nobody"],
            ["--predictor-args", "{"],
            ["--predictor-args", '{"nothing": 1}'],
            ["--overrides", "{"],
            ["--overrides", '{"model.nothing": 1}'],
            ["--weights-file", "nowhere.th"],
            ["--include-package", "no_such_package"],
        ],
        ids=" ".join,
    )
    def test_what_cannot_be_loaded_leaves_the_output_alone(self, both, classifier, flags) -> None:
        both.before = b"of the last run\n"
        theirs = both(classifier, LINES, *flags)
        assert theirs.error and theirs.output == both.before

    @pytest.mark.parametrize("name", ["missing.tar.gz", "input.jsonl"])
    def test_archives_that_are_none(self, both, tmp_path, name) -> None:
        both.before = b"of the last run\n"
        assert both(str(tmp_path / name), LINES).error

    def test_the_output_of_the_last_run_is_replaced(self, both, classifier) -> None:
        both.before = b"of the last run\n" * 1000
        assert b"last run" not in both(classifier, LINES).output


class TestRegistered:
    """Classes that workers must know too."""

    PREDICTOR = """
from allennlp.predictors import Predictor, TextClassifierPredictor

@Predictor.register("{name}")
class LocalPredictor(TextClassifierPredictor):
    def dump_line(self, outputs):
        return "{name} " + outputs["label"] + chr(10)
"""

    @pytest.mark.parametrize("start_method", ["fork", "spawn"])
    def test_by_a_local_plugin(self, both, classifier, tmp_path, start_method) -> None:
        name = f"local_plugin_{start_method}"
        (tmp_path / ".allennlp_plugins").write_text(name + "\n")
        (tmp_path / f"{name}.py").write_text(self.PREDICTOR.format(name=name))
        flags = {"start_method": start_method, "cwd": str(tmp_path)}
        theirs = both(classifier, LINES, "--predictor", name, **flags)
        assert theirs.output.startswith(name.encode())

    @pytest.mark.parametrize("start_method", ["fork", "spawn"])
    def test_by_an_included_package(self, both, classifier, tmp_path, start_method) -> None:
        name = f"included_{start_method}"
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "part.py").write_text(self.PREDICTOR.format(name=name))
        flags = {"start_method": start_method, "cwd": str(tmp_path)}
        unknown = both(classifier, LINES, "--predictor", name, **flags)
        assert unknown.error.endswith("ConfigurationError")
        include = ["--predictor", name, "--include-package", name]
        assert both(classifier, LINES, *include, **flags).output.startswith(name.encode())

    def test_in_the_running_process(self, here, classifier) -> None:
        from allennlp.predictors import Predictor, TextClassifierPredictor

        @Predictor.register("contract-local", exist_ok=True)
        class LocalPredictor(TextClassifierPredictor):
            def predict_json(self, inputs):
                return dict(super().predict_json(inputs), local=os.getpid() > 0)

        theirs = here(classifier, LINES, "--predictor", "contract-local")
        assert "local" in keys(theirs)

    def test_error_of_the_running_process(self, here, classifier) -> None:
        from allennlp.predictors import Predictor, TextClassifierPredictor

        class LocalError(Exception):
            pass

        @Predictor.register("contract-local-error", exist_ok=True)
        class LocalPredictor(TextClassifierPredictor):
            def predict_json(self, inputs):
                raise LocalError("no module has me")

        theirs = here(classifier, LINES, "--predictor", "contract-local-error")
        assert theirs.error.endswith("LocalError")

    @pytest.mark.skipif(PARALLEL_PREDICT == PREDICT, reason="predict starts no process")
    def test_in_the_running_process_under_spawn(self, here, classifier, tmp_path) -> None:
        """A new process cannot import the class: either it is sent there, or the error says so."""
        from allennlp.predictors import Predictor, TextClassifierPredictor

        @Predictor.register("contract-spawn", exist_ok=True)
        class LocalPredictor(TextClassifierPredictor):
            def dump_line(self, outputs):
                return "sent\n"

        (tmp_path / "input").write_text(LINES)
        flags = ["--predictor", "contract-spawn", "--output-file", str(here.output)]
        flags += ["--parallel-overrides", SPAWN, "--num-workers", "2"]
        ours = here.run(PARALLEL_PREDICT, classifier, str(tmp_path / "input"), *flags)
        if ours.status:
            assert "spawn" in ours.message + ours.stderr
        else:
            assert ours.output == b"sent\n" * len(SENTENCES)

    def test_model_without_a_predictor(self, here, classifier, monkeypatch) -> None:
        """The base class of predictors is enough for instances."""
        from allennlp.models import BasicClassifier

        monkeypatch.setattr(BasicClassifier, "default_predictor", None)
        theirs = here(classifier, TestDatasetReader.TEXT, "--use-dataset-reader")
        assert "loss" in keys(theirs)


@pytest.mark.skipif(PARALLEL_PREDICT == PREDICT, reason="is about the command itself")
class TestCommand:
    def test_flags(self) -> None:
        """Those of `predict`, with its defaults, and the function's name that AllenNLP tests."""
        from allennlp.commands.predict import Predict

        from allennlp_parallel_predict.commands.predict import ParallelPredict

        parsed = []
        for subcommand, name in [(Predict(), "predict"), (ParallelPredict(), "parallel-predict")]:
            subcommand._reg_name = name
            subparsers = argparse.ArgumentParser().add_subparsers()
            parser = subcommand.add_subparser(subparsers)
            parsed.append(vars(parser.parse_args(["archive", "-", "--cuda-device", "0"])))
        assert parsed[1].pop("func").__name__ == parsed[0].pop("func").__name__ == "_predict"
        assert parsed[0].items() <= parsed[1].items()
        assert parsed[0]["cuda_device"] == 0 and parsed[0]["batch_size"] == 1

    @pytest.mark.parametrize("batch_size", ["0", "-1"])
    def test_batch_sizes_that_are_none(self, both, classifier, tmp_path, batch_size) -> None:
        """`predict` does nothing about 0, which helps nobody."""
        (tmp_path / "input").write_text(LINES)
        flags = [str(tmp_path / "input"), "--batch-size", batch_size]
        ours = both.run(PARALLEL_PREDICT, classifier, *flags)
        assert ours.status != 0 and "batch_size" in ours.message + ours.stderr

    @pytest.mark.parametrize("plugin", [False, True])
    def test_in_a_shell(self, both, classifier, tmp_path, plugin) -> None:
        """As a program that reads a pipe: under its own name, or as a plugin of AllenNLP's."""
        if plugin:
            (tmp_path / ".allennlp_plugins").write_text("allennlp_parallel_predict\n")
        # With today's libraries AllenNLP's own command cannot be imported before the shims are.
        is_adapted = sys.version_info >= (3, 11)
        program = "allennlp" if plugin and not is_adapted else "allennlp_parallel_predict"
        command = [sys.executable, "-m", program, "parallel-predict", classifier, "-"]
        text = LINES.encode() + b"{"
        theirs = both.run(PREDICT, classifier, "-", stdin=text)
        run = subprocess.run(
            [*command, "--num-workers", "2"],
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            timeout=120,
        )
        assert run.stdout == theirs.stdout
        assert run.returncode == theirs.status == 1
        assert b"JSONDecodeError" in run.stderr
