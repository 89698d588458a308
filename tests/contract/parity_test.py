"""
`parallel-predict` gives the bytes that `predict` gives: every kind of archive, batch size, number
of workers and start method. Where `predict` fails, ours fails in the same way.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence

import pytest

from tests.support.running import PARALLEL_PREDICT, PREDICT, Outcome, Runner, assert_same

pytestmark = pytest.mark.timeout(200)

# More than three batches of four; short and long, unknown words, letters of two to four bytes.
SENTENCES = [
    "Mary Smith sees the old dog .",
    "Rain fell .",
    "The dog barked and the cat ran away , but nobody in New York knows why he wrote it .",
    "Ran",
    "Zürich sells good tea – naïvely",
    "They want to win the game in Rome , they want to win , they want .",
    "she read 日本語 🙂 and left",
    "unknown words everywhere here",
    "\u2028 He \\ wrote \" a 'letter' .",
    "Paris is a big city .",
    "Tom left , Tom ran , Tom wrote , Tom read .",
    "the the the the the the the the the the the the the the",
    "Nobody knows .",
]


def sentence(text: str) -> Dict[str, Any]:
    return {"sentence": text}


def masked(text: str) -> Dict[str, Any]:
    return {"sentence": "[MASK] " + text + " [MASK]"}


def source(text: str) -> Dict[str, Any]:
    return {"source": text}


def document(text: str) -> Dict[str, Any]:
    return {"document": text + " She sees him ."}


def question(text: str) -> Dict[str, Any]:
    return {"passage": text + " Mary left Tom .", "question": "Who left " + text[-8:] + "?"}


def labelled(text: str) -> Dict[str, Any]:
    return {"text": text, "label": "long" if len(text) > 30 else "short"}


@dataclass
class Case:
    """An archive, the input lines it takes, and the flags it needs."""

    archive: str
    record: Callable[[str], Any] = sentence
    flags: Sequence[str] = ()
    predictor: str = ""
    spacy: bool = False  # whether the predictor takes a spaCy model

    def __str__(self) -> str:
        return "-".join(
            filter(None, [self.archive, self.predictor, "reader" * self.reads_instances])
        )

    @property
    def reads_instances(self) -> bool:
        return "--use-dataset-reader" in self.flags

    def lines(self) -> List[str]:
        records = (self.record(text) for text in SENTENCES)
        return [r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records]


READER = ["--use-dataset-reader"]
WRITING = Case(
    "writing_tagger", spacy=True, flags=["--include-package", "tests.fixtures.writing_model"]
)
SAMPLING = Case("sampling_seq2seq", source)
REPEATING = Case(
    "sampling_seq2seq", lambda text: {"source": "the dog sees Tom"}, predictor="seq2seq"
)
CASES = [
    Case("text_classifier"),
    Case("text_classifier", labelled, READER),
    Case("transformer_classifier"),
    Case("tagger", spacy=True),
    Case("stateful_tagger", spacy=True),
    Case("crf_tagger", spacy=True),
    Case("seq2seq", source),
    Case("copynet", source),
    Case("srl", predictor="semantic_role_labeling", spacy=True),
    Case("srl", predictor="open_information_extraction", spacy=True),
    Case("coref", document, spacy=True),
    Case("bidaf", question),
    Case("transformer_qa", question),
    Case("biaffine_parser", spacy=True),
    Case("masked_lm", masked, predictor="masked_language_model"),
    Case("next_token_lm", predictor="next_token_lm"),
    Case("language_model", str, READER),
    Case("multitask", labelled, [*READER, "--multitask-head", "second"]),
]


class Parity:
    """Runs both commands on a case; `predict` once for every batch size."""

    def __init__(
        self, predict: Runner, ours: Runner, archives: Any, spacy: str, folder: Path
    ) -> None:
        self.archives, self.spacy, self.folder = archives, spacy, folder
        self.runner = ours
        self.predict = lru_cache(maxsize=None)(
            lambda name, batch_size: self.run(predict, PREDICT, CASES_BY_NAME[name], batch_size)
        )

    def run(
        self, runner: Runner, command: str, case: Case, batch_size: int, *flags: str
    ) -> Outcome:
        path, output = self.folder / f"{case}.{batch_size}", self.folder / f"{command}.out"
        lines = case.lines()
        if not case.reads_instances:
            # What lies between the lines is no line; what a file ends with makes no difference.
            lines[5:5] = ["", " \t "]
            lines[7] += "\r"
            lines[8] = "  " + lines[8]
        end = "" if batch_size == 1 else "\n" if case.reads_instances else "\n\n  \n"
        path.write_text("\n".join(lines) + end, encoding="utf-8")
        arguments = [command, self.archives(case.archive), str(path), "--output-file", str(output)]
        arguments += ["--batch-size", str(batch_size), *case.flags, *flags]
        if case.predictor:
            arguments += ["--predictor", case.predictor]
        if case.spacy:
            arguments += ["--predictor-args", json.dumps({"language": self.spacy})]
        if output.exists():
            output.unlink()
        return runner.run(arguments, output=output)

    def ours(self, case: Case, batch_size: int, **settings: Any) -> Outcome:
        if PARALLEL_PREDICT == PREDICT:
            return self.run(self.runner, PREDICT, case, batch_size)
        if "executor" not in settings:
            settings = {"executor.threads_per_worker": 1, **settings}
        overrides = ["--parallel-overrides", json.dumps(settings)]
        return self.run(self.runner, PARALLEL_PREDICT, case, batch_size, *overrides)

    def check(self, case: Case, batch_size: int, **settings: Any) -> None:
        assert_same(self.ours(case, batch_size, **settings), self.predict(str(case), batch_size))


CASES_BY_NAME = {str(case): case for case in [*CASES, WRITING, SAMPLING, REPEATING]}


@pytest.fixture(scope="module")
def parity(predict, parallel_predict, archives, spacy_model, tmp_path_factory) -> Parity:
    return Parity(
        predict, parallel_predict, archives, spacy_model, tmp_path_factory.mktemp("parity")
    )


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_reference_predicts(parity: Parity, case: Case) -> None:
    """The other tests would pass with two empty files."""
    outcome = parity.predict(str(case), 1)
    assert outcome.error == "", outcome.traceback
    assert outcome.output is not None and outcome.output.count(b"\n") >= len(SENTENCES)
    assert outcome.stdout.count(b"prediction: ") == len(SENTENCES)
    if case.record is not sentence or case.archive == "text_classifier":
        assert len(set(outcome.output.splitlines())) > 3


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_forked_workers(parity: Parity, case: Case, batch_size: int, workers: int) -> None:
    settings = {"executor.start_method": "fork", "executor.num_workers": workers}
    parity.check(case, batch_size, **settings)


# A spawned worker imports AllenNLP, which takes seconds: every case has two workers with batches of
# four, and each of the other combinations has a case.
SPAWNED = [(case, 4, 2) for case in CASES]
SPAWNED += zip(CASES, (1, 4, 1, 4, 1), (1, 1, 2, 3, 3))


@pytest.mark.parametrize("case, batch_size, workers", SPAWNED, ids=str)
def test_spawned_workers(parity: Parity, case: Case, batch_size: int, workers: int) -> None:
    settings = {"executor.start_method": "spawn", "executor.num_workers": workers}
    parity.check(case, batch_size, **settings)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@pytest.mark.parametrize("name", ["transformer_classifier", "transformer_qa", "multitask-reader"])
def test_lines_in_operation_batches(parity: Parity, name: str, start_method: str) -> None:
    settings = {"executor.start_method": start_method, "executor.num_workers": 2}
    parity.check(CASES_BY_NAME[name], 1, **settings, **{"executor.operation_batching": True})


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_with_models_of_their_own(parity: Parity, start_method: str) -> None:
    settings = {"executor.start_method": start_method, "executor.num_workers": 2}
    parity.check(CASES_BY_NAME["seq2seq"], 4, **settings, **{"executor.share_model": False})


@pytest.mark.parametrize("case", CASES, ids=str)
def test_in_this_process(parity: Parity, case: Case) -> None:
    parity.check(case, 4, executor={"type": "in_process"})


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_model_that_writes_to_itself_in_this_process(parity: Parity, batch_size: int) -> None:
    parity.check(WRITING, batch_size, executor={"type": "in_process"})


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_a_model_that_writes_to_itself_is_never_silently_wrong(
    parity: Parity, start_method: str
) -> None:
    settings = {"executor.start_method": start_method, "executor.num_workers": 2}
    ours, theirs = parity.ours(WRITING, 4, **settings), parity.predict(str(WRITING), 4)
    if ours.status == 0:
        assert_same(ours, theirs)
    else:
        assert "batches_seen" in ours.message + ours.stderr
        assert theirs.output is not None and theirs.output.startswith(ours.output or b"")


def test_a_model_that_draws_random_numbers_in_this_process(parity: Parity) -> None:
    parity.check(SAMPLING, 4, executor={"type": "in_process"})


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_draw_random_numbers_of_their_own(parity: Parity, start_method: str) -> None:
    """A forked worker has its parent's random numbers, the same as every other worker's."""
    settings = {"executor.start_method": start_method, "executor.num_workers": 3}
    ours = parity.ours(REPEATING, 1, **settings)
    assert ours.output is not None and ours.status == 0, ours.stderr
    lines = ours.output.splitlines()
    # All inputs are the same; what differs between two lines is what was drawn.
    assert len(set(lines)) == len(lines) == len(SENTENCES)
