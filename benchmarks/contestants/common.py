"""
What the contestants have in common: arguments, batches, and `allennlp predict`'s way with a batch.

A contestant is a script that reads an input file and writes the same output file as `predict`. It
differs from the others only in how the batches get to processes.
"""

import argparse
import os
from itertools import islice
from typing import Iterable, Iterator, List, NamedTuple, Optional

Batch = List[str]

_predictor = None


class Job(NamedTuple):
    """What a contestant is to do."""

    archive: str
    predictor: str
    input_file: str
    output_file: str
    batch_size: int
    workers: int
    threads: int
    """Of torch in each process, where a contestant leaves the choice to an experiment."""

    def batches(self) -> Iterator[Batch]:
        """The lines of the input, some at a time."""
        with open(self.input_file) as lines:
            while True:
                batch = list(islice(lines, self.batch_size))
                if not batch:
                    return
                yield batch

    def write(self, results: Iterable[List[str]]) -> None:
        """Writes the outputs of batches as they come."""
        with open(self.output_file, "w") as file:
            for outputs in results:
                file.writelines(outputs)

    def load(self, threads: Optional[int] = None):
        """Loads the predictor, for torch to run with some number of threads."""
        return load(self.archive, self.predictor, threads)


def job() -> Job:
    parser = argparse.ArgumentParser()
    for name in Job._fields[:4]:
        parser.add_argument(name)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=0)
    return Job(**vars(parser.parse_args()))


def load(archive: str, predictor: str, threads: Optional[int] = None):
    """
    Loads a predictor. Nothing is asked of its class but that `benchmarks.predictors` has it, or
    one of AllenNLP's plugins.
    """
    import torch
    from allennlp.common.plugins import import_plugins
    from allennlp.predictors import Predictor

    import benchmarks.predictors  # noqa: F401

    if threads is not None:
        torch.set_num_threads(threads)
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import_plugins()
    return Predictor.from_path(archive, predictor_name=predictor)


def predict(predictor, lines: Batch) -> List[str]:
    """A batch of lines in, a batch of lines out, as `allennlp predict` does it."""
    inputs = [predictor.load_line(line) for line in lines if not line.isspace()]
    if len(inputs) == 1:
        results = [predictor.predict_json(inputs[0])]
    else:
        results = predictor.predict_batch_json(inputs)
    return [predictor.dump_line(result) for result in results]


def initialize(archive: str, predictor: str) -> None:
    """A worker's initializer: it loads a predictor of its own, and uses one thread."""
    global _predictor
    _predictor = load(archive, predictor, threads=1)


def predict_initialized(lines: Batch) -> List[str]:
    """The task of a worker that has been initialized."""
    return predict(_predictor, lines)
