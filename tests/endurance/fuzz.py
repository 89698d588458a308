"""
Damaged archives and checkpoints, as many as the time allows:

    python -m tests.endurance.fuzz --seconds 600 --seed 1        # or: make fuzz

An archive is loaded or refused in a sentence, and nothing is left of it. A checkpoint is refused
and the output stays as it is, or the run goes on to the same bytes as without the damage.
"""

import argparse
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from allennlp_parallel_predict.common.errors import ResumeError
from allennlp_parallel_predict.models.archives import load_predictor
from tests.support.faults import faulty_archive
from tests.support.fuzzing import damaged, damaged_archive
from tests.support.small_runs import FaultyOS, Killed, Place, QuickOS


def fuzz_archive(archive: bytes, random: Random, path: Path) -> str:
    """What became of a damaged copy, in `path`."""
    path.write_bytes(damaged_archive(archive, random))
    try:
        load_predictor(str(path), "faulty")
    except Exception as error:
        if not hasattr(error, "explanation"):
            # What AllenNLP makes of `"model": "text"`. It could as well be a bug of the model's.
            assert isinstance(error, (AttributeError, KeyError, TypeError)), repr(error)
            return "refused with a traceback"
        assert len(error.explanation) < 10_000
        return "refused"
    return "loaded"


def interrupted(folder: Path) -> Place:
    """A run that was killed in the middle of a write."""
    place = Place(folder, range(40))
    try:
        place.run(FaultyOS(50, "kill in the middle"))
    except Killed:
        return place
    raise AssertionError("it was not killed")


def fuzz_checkpoint(before: "dict[str, bytes]", random: Random, place: Place) -> str:
    """What became of a run that was resumed with a damaged checkpoint."""
    for name, content in before.items():
        (place.folder / name).write_bytes(content)
    place.checkpoint.write_bytes(damaged(before["output.checkpoint"], random))
    try:
        place.run(QuickOS(), resume=True)
    except ResumeError:
        assert place.output.read_bytes() == before["output"]
        return "refused"
    place.check()
    return "complete"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    random, counts = Random(args.seed), Counter()
    end = time.monotonic() + args.seconds
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = faulty_archive(folder).read_bytes()
        (folder / "run").mkdir()
        (folder / "tmp").mkdir()
        tempfile.tempdir = str(folder / "tmp")
        place = interrupted(folder / "run")
        before = {path.name: path.read_bytes() for path in place.folder.iterdir()}
        while time.monotonic() < end:
            counts["archives " + fuzz_archive(archive, random, folder / "bad.tar.gz")] += 1
            for _ in range(10):
                counts["checkpoints " + fuzz_checkpoint(before, random, place)] += 1
            assert os.listdir(folder / "tmp") == []
        tempfile.tempdir = None
    for what, number in sorted(counts.items()):
        print(f"{what}: {number:,}")
    print("nothing hung, was lost or left behind")


if __name__ == "__main__":
    main()
