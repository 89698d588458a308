"""Shards by hand: the input is split, and each part has an `allennlp predict` with one thread."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.contestants.common import job


def main() -> None:
    this = job()
    lines = open(this.input_file).readlines()
    env = {**os.environ, "OMP_NUM_THREADS": str(this.threads or 1)}
    size = -(-len(lines) // this.workers)
    with tempfile.TemporaryDirectory() as name:
        commands, outputs = [], []
        for number in range(this.workers):
            part = Path(name) / f"{number}.jsonl"
            part.write_text("".join(lines[number * size : (number + 1) * size]))
            outputs.append(part.with_suffix(".out"))
            command = [
                sys.executable,
                "-m",
                "allennlp_parallel_predict",
                "predict",
                this.archive,
                str(part),
            ]
            command += ["--output-file", str(outputs[-1]), "--silent"]
            command += ["--batch-size", str(this.batch_size), "--predictor", this.predictor]
            command += ["--include-package", "benchmarks.predictors"]
            commands.append(subprocess.Popen(command, env=env))
        if any([command.wait() for command in commands]):
            sys.exit(1)
        with open(this.output_file, "wb") as file:
            for output in outputs:
                with open(output, "rb") as part_file:
                    shutil.copyfileobj(part_file, file)


if __name__ == "__main__":
    main()
