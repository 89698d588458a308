"""
Turns some 1,400 words that the model has never seen into phonemes, with
`allennlp parallel-predict` and then with `allennlp predict`, and compares the two.

Run it as `make demo`. What it writes stays in `build/demo`.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Sequence, Tuple

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "build" / "demo"
MODEL = "examples/g2p/model.tar.gz"
WORDS = "examples/g2p/words.jsonl"
REFERENCES = ROOT / "examples" / "g2p" / "references.tsv"

# AllenNLP, and what it is built on, have a lot to say that is beside the point here.
QUIET = {
    "ALLENNLP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
    # allennlp-models downloads data for NLTK at import unless it finds this. Nothing here needs it.
    "NLTK_DATA": str(OUTPUT / "nltk_data"),
}


def predict(subcommand: str, *flags: str, **environment: str) -> Tuple[Path, float]:
    """
    # Returns

    output, seconds : `Tuple[Path, float]`
        The file with the predictions, and the time from starting the command to its end.
    """
    output = OUTPUT / f"{subcommand}.jsonl"
    command = [subcommand, MODEL, WORDS, "--output-file", os.path.relpath(output, ROOT)]
    command += ["--batch-size", "32", "--silent", *flags]
    shown = [f"{name}={value}" for name, value in environment.items()] + [
        "allennlp-parallel-predict",
        *command,
    ]
    print(f"$ {' '.join(shown)}", flush=True)
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "allennlp_parallel_predict", *command],
        cwd=ROOT,
        env={**os.environ, **QUIET, **environment},
        check=True,
    )
    return output, time.monotonic() - start


def distance(left: Sequence[str], right: Sequence[str]) -> int:
    """The number of insertions, deletions and substitutions that turn `left` into `right`."""
    row = list(range(len(right) + 1))
    for i, a in enumerate(left, start=1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(right, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def print_quality(output: Path) -> None:
    """Prints some predictions, and the error rates over all of them."""
    words = wrong_words = phonemes = wrong_phonemes = 0
    rows: List[str] = []
    with open(output) as predictions, open(REFERENCES) as references:
        for prediction, reference in zip(predictions, references):
            word, *pronunciations = reference.rstrip("\n").split("\t")
            best = json.loads(prediction)["predicted_tokens"][0]
            # A word may be said in several ways; the closest one counts.
            errors, length = min(
                (distance(best, pronunciation.split()), len(pronunciation.split()))
                for pronunciation in pronunciations
            )
            words += 1
            wrong_words += errors > 0
            phonemes += length
            wrong_phonemes += errors
            verdict = "right" if errors == 0 else f"dictionary: {pronunciations[0]}"
            rows.append(f"  {word:16}{' '.join(best):38}{verdict}")
    print("\nSome of the predictions:\n")
    print("\n".join(rows[:: max(1, len(rows) // 10)]))
    print(f"\n{words} words: {wrong_words / words:.1%} have an error,", end=" ")
    print(f"{wrong_phonemes / phonemes:.1%} of the phonemes are wrong.\n")


def main() -> None:
    (OUTPUT / "nltk_data" / "tokenizers" / "punkt").mkdir(parents=True, exist_ok=True)
    # The first import compiles a thousand modules; that time would be added to the first command.
    subprocess.run(
        [sys.executable, "-m", "allennlp_parallel_predict", "--version"],
        cwd=ROOT,
        env={**os.environ, **QUIET},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    print("Grapheme to phoneme, a simple_seq2seq with beam search, on held-out words.\n")
    parallel, parallel_seconds = predict("parallel-predict", "--progress", "always")
    print_quality(parallel)
    print("The same with AllenNLP's own command, one thread as each worker has:\n")
    single, single_seconds = predict("predict", OMP_NUM_THREADS="1")
    same = parallel.read_bytes() == single.read_bytes()
    print(f"\nparallel-predict {parallel_seconds:6.1f} s   {parallel.relative_to(ROOT)}")
    print(f"predict          {single_seconds:6.1f} s   {single.relative_to(ROOT)}")
    if not same:
        sys.exit("The two files DIFFER. They must not; please report it.")
    print(f"The two files are identical, byte for byte ({single.stat().st_size:,} bytes).")


if __name__ == "__main__":
    main()
