"""
What the benchmark predicts: four archives and the inputs for them, built once and kept.

    minilm      a text classifier on MiniLM, a transformer with 22 million parameters
    g2p         the demo's grapheme-to-phoneme model (beam search)
    g2p-large   the same task with 2 x 256 LSTMs, beam size 5 and up to 40 steps
    tagger      an LSTM tagger with an embedding matrix of 400,000 x 300: an archive of 500 MB

and a fifth for the memory alone, `wide`, with as many parameters and a small vocabulary.

Everything is made here from installed packages, so nothing is downloaded.
"""

import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("BENCHMARK_CACHE") or ROOT / "build" / "benchmarks")
SENTENCES = 12_000
"""The first 8,192 are predicted, the others are there to learn from."""
PREDICTED = 8_192
EMBEDDINGS = (400_000, 300)
WIDTH = 11_000


class Workload(NamedTuple):
    """Something to predict."""

    name: str
    title: str
    predictor: str
    archive: Path
    inputs: Path
    """All inputs that there are for it."""

    def head(self, lines: Optional[int]) -> Path:
        """A file with the first `lines` inputs."""
        if lines is None:
            return self.inputs
        path = self.inputs.with_suffix(f".{lines}.jsonl")
        if not path.exists():
            with open(self.inputs) as file:
                _write(path, [line for line, _ in zip(file, range(lines))])
        return path


def prepare(names: Sequence[str]) -> List[Workload]:
    """The workloads of these names, whose archives and inputs are built if they are not there."""
    CACHE.mkdir(parents=True, exist_ok=True)
    return [_BUILDERS[name]() for name in names]


def _minilm() -> Workload:
    archive = CACHE / "minilm.tar.gz"
    if not archive.exists():
        from benchmarks.archives import train_minilm

        _log("training the classifier's head")
        kinds = [json.loads(line) for line in open(_sentences().with_suffix(".kinds"))]
        texts = [json.loads(line)["sentence"] for line in open(_sentences())]
        train_minilm(archive, list(zip(texts, kinds))[PREDICTED:])
    return Workload(
        "minilm",
        "text classifier, MiniLM (22 M parameters)",
        "timed_text_classifier",
        archive,
        _predicted_sentences(),
    )


def _g2p() -> Workload:
    folder = ROOT / "examples" / "g2p"
    inputs = CACHE / "words.jsonl"
    if not inputs.exists():
        shutil.copyfile(folder / "words.jsonl", inputs)
    title = "grapheme to phoneme, beam search (the demo)"
    return Workload("g2p", title, "timed_seq2seq", folder / "model.tar.gz", inputs)


def _g2p_large() -> Workload:
    archive, inputs = CACHE / "g2p-large.tar.gz", CACHE / "words-large.jsonl"
    if not (archive.exists() and inputs.exists()):
        from benchmarks.archives import pronunciations, train_g2p

        words = pronunciations()
        random.Random(7).shuffle(words)
        if not archive.exists():
            _log("training the large grapheme-to-phoneme model")
            train_g2p(archive, words[8_000:])
        _write(inputs, [json.dumps({"source": word}) + "\n" for word, _ in words[:8_000]])
    title = "grapheme to phoneme, 2 x 256 LSTM, beam size 5, up to 40 steps"
    return Workload("g2p-large", title, "timed_seq2seq", archive, inputs)


def _tagger() -> Workload:
    archive = CACHE / "tagger.tar.gz"
    if not archive.exists():
        from benchmarks.archives import write_tagger

        _log("building the archive with 500 MB of embeddings")
        words = {w for line in open(_sentences()) for w in json.loads(line)["sentence"].split()}
        write_tagger(archive, sorted(words), *EMBEDDINGS)
    title = "LSTM tagger, embeddings 400,000 x 300 (500 MB)"
    return Workload("tagger", title, "timed_tagger", archive, _predicted_sentences())


def _wide() -> Workload:
    archive = CACHE / "wide.tar.gz"
    if not archive.exists():
        from benchmarks.archives import write_wide

        _log("building the archive with 500 MB in one matrix")
        words = {w for line in open(_sentences()) for w in json.loads(line)["sentence"].split()}
        write_wide(archive, sorted(words)[:5000], WIDTH)
    title = "text classifier, one matrix of 11,000 x 11,000 (500 MB)"
    return Workload("wide", title, "timed_text_classifier", archive, _predicted_sentences())


def _sentences() -> Path:
    path = CACHE / "sentences.jsonl"
    if not path.exists():
        from benchmarks.texts import collect

        _log("collecting sentences")
        sentences = collect(SENTENCES)
        _write(path.with_suffix(".kinds"), [json.dumps(kind) + "\n" for _, kind in sentences])
        _write(path, [json.dumps({"sentence": text}) + "\n" for text, _ in sentences])
    return path


def _predicted_sentences() -> Path:
    path = CACHE / "predicted.jsonl"
    if not path.exists():
        _write(path, list(open(_sentences()))[:PREDICTED])
    return path


def _write(path: Path, lines: List[str]) -> None:
    # First under another name: a run that is broken off leaves no half of a file.
    temporary = path.with_name(path.name + ".part")
    with open(temporary, "w") as file:
        file.writelines(lines)
    temporary.rename(path)


def _log(message: str) -> None:
    print(f"preparing: {message}", file=sys.stderr, flush=True)


_BUILDERS: Dict[str, Callable[[], Workload]] = {
    "minilm": _minilm,
    "g2p-large": _g2p_large,
    "g2p": _g2p,
    "tagger": _tagger,
}
NAMES = list(_BUILDERS)
_BUILDERS["wide"] = _wide
