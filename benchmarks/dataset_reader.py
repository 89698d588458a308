"""
`--use-dataset-reader` with a reader whose `text_to_instance` is the expensive part.

`predict` runs it in the one process that also runs the model, on one CPU whatever the number of
torch's threads. `parallel-predict` runs it in the workers, whether the reader supports AllenNLP's
sharding or not. In pairs, with the demo's model, batches of 32 and 4 ms of CPU time an instance.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import List

if __name__ == "__main__":
    # The repository instead of this folder, whose names AllenNLP's search for plugins would find.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measure, report, workloads  # noqa: E402
from benchmarks.contestants import Contestant  # noqa: E402
from benchmarks.workloads import CACHE, Workload  # noqa: E402

READERS = {"slow_sharding_seq2seq": "supports sharding", "slow_seq2seq": "does not"}


def inputs(workload: Workload, lines: int) -> Path:
    """The words as the reader of the demo's training data reads them."""
    path = CACHE / f"words.{lines}.tsv"
    words = [json.loads(line)["source"] for line in open(workload.head(lines))]
    path.write_text("".join(f"{word}\tAH\n" for word in words))
    return path


def run(workload: Workload, path: Path, subcommand: str, reader: str) -> measure.Measured:
    settings = {} if subcommand == "parallel-predict" else None
    contestant = Contestant("", "", None, subcommand, settings=settings)
    output = CACHE / "reader.out"
    command = contestant.command(workload.archive, workload.predictor, path, output, 2)
    command += ["--include-package", "benchmarks.slow_readers", "--use-dataset-reader"]
    command += ["--overrides", json.dumps({"dataset_reader.type": reader})]
    return measure.run_well(command, output, environment={"OMP_NUM_THREADS": "1"})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--lines", type=int, default=1344)
    args = parser.parse_args()
    (workload,) = workloads.prepare(["g2p"])
    path = inputs(workload, args.lines)
    print(report.heading(__doc__))
    print("| reader | predict, lines/s | parallel-predict, lines/s | ratio | bytes |")
    print("|---|--:|--:|--:|---|")
    for reader, title in READERS.items():
        theirs: List[measure.Measured] = []
        ours: List[measure.Measured] = []
        for _ in range(args.pairs):
            theirs.append(run(workload, path, "predict", reader))
            ours.append(run(workload, path, "parallel-predict", reader))
        ratios = [(b.steady or 0) / (a.steady or 1) for a, b in zip(theirs, ours)]
        same = all(a.output == b.output for a, b in zip(theirs, ours))
        rates = (median(m.steady or 0 for m in measured) for measured in (theirs, ours))
        print(
            f"| {title} | {' | '.join(f'{rate:.0f}' for rate in rates)} "
            f"| {median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}] "
            f"| {'same' if same else 'OTHER'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
