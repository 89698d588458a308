"""
Why decoding gets slower in several processes, cause by cause: the experiments behind
`docs/why-is-decoding-slower.md`.

    python benchmarks/causes.py                      all, in about 5 minutes on two cores
    python benchmarks/causes.py --only padding ...
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import time
import timeit
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import torch

if __name__ == "__main__":
    # The repository instead of this folder, whose names AllenNLP's search for plugins would find.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from allennlp_parallel_predict.accelerate import packed_weights  # noqa: E402
from allennlp_parallel_predict.accelerate.finished_beams import decode_live_beams_only  # noqa: E402
from allennlp_parallel_predict.accelerate.operation_batching import (
    GROUP_SIZE,
    OperationBatcher,
)
from allennlp_parallel_predict.accelerate.padding import skip_padding  # noqa: E402
from allennlp_parallel_predict.accelerate.shared_layers import layers_to_share  # noqa: E402
from benchmarks import measure, report, workloads  # noqa: E402
from benchmarks.contestants import Contestant, common  # noqa: E402
from benchmarks.workloads import CACHE, ROOT, Workload  # noqa: E402

WORKERS = 2
BATCH_SIZE = 32
LIMIT = 180.0


def shipping() -> None:
    """A pool whose tasks carry the predictor"""
    _table("| model | predictor, MB | pickle, unpickle, ms | predicting 32 lines, ms |")
    for workload in workloads.prepare(["g2p", "minilm", "tagger"]):
        _row(workload.name, *_in_a_process("shipping", workload))


def _shipping(workload: Workload) -> List[str]:
    predictor, lines = _load(workload, BATCH_SIZE)
    pickled = pickle.dumps(predictor, protocol=pickle.HIGHEST_PROTOCOL)
    there = _time(lambda: pickle.dumps(predictor, protocol=pickle.HIGHEST_PROTOCOL))
    back = _time(lambda: pickle.loads(pickled))
    predicting = _time(lambda: common.predict(predictor, lines))
    megabytes = f"{len(pickled) / measure.MB:,.1f}"
    return [megabytes, f"{1e3 * there:,.0f} + {1e3 * back:,.0f}", f"{1e3 * predicting:,.0f}"]


def threads() -> None:
    """Two processes on two cores, with one and with two threads each"""
    _table("| model | threads each | lines/s | CPU ms/line |")
    for workload, lines in _sized({"g2p-large": 512, "minilm": 192}):
        for number in (1, 2):
            measured = _contestant("shards", workload, workload.head(lines), threads=number)
            _row(workload.name, number, *_speed(measured, lines))


def fork() -> None:
    """A pool forked from a process that has used torch, with several threads and with one"""
    _table("| model | threads of the parent | outcome | s |")
    for workload, lines in _sized({"g2p": 704, "minilm": 128}):
        for number in (2, 1):
            measured = _contestant("naive_pool", workload, workload.head(lines), threads=number)
            outcome = f"{measured.outcome} {measured.note}"
            _row(workload.name, number, outcome, f"{measured.seconds:.1f}")


def padding() -> None:
    """Batches of one, of 32 as they come, and of 32 of like length, on one thread"""
    (workload,) = workloads.prepare(["minilm"])
    _table("| batches | word pieces that are padding | CPU ms/line | without computing it |")
    for row in _in_a_process("padding", workload):
        _row(*row)


def _padding(workload: Workload) -> List[List[str]]:
    predictor, lines = _load(workload, 2048)  # a window of `bucket`
    reader = predictor._dataset_reader
    texts = [json.loads(line)["sentence"] for line in lines]
    lengths = {line: len(reader._tokenizer.tokenize(text)) for line, text in zip(lines, texts)}
    rows, tried = [], []
    for title, size, ordered in (
        ("of one", 1, lines),
        ("of 32, as they come", BATCH_SIZE, lines),
        ("of 32, sorted by length", BATCH_SIZE, sorted(lines, key=len)),
    ):
        batches = [ordered[i : i + size] for i in range(0, len(ordered), size)]
        padded = sum(max(lengths[line] for line in batch) * len(batch) for batch in batches)
        # All of them would take minutes.
        some = batches[len(batches) // 16 :: len(batches) // 8]
        tried.append(some if size > 1 else batches[::16])
        part = f"{1 - sum(lengths.values()) / padded:.0%}"
        rows.append([title, part, _cpu_per_line(predictor, tried[-1])])
    skip_padding(predictor._model)
    for row, batches in zip(rows, tried):
        _cpu_per_line(predictor, batches)  # the numbers of rows are tried once
        row.append(_cpu_per_line(predictor, batches))
    return rows


def weights() -> None:
    """Batches of one that pass the layers of a transformer one after the other, and together"""
    (workload,) = workloads.prepare(["minilm"])
    _table("| lines at once | CPU ms/line |")
    for row in _in_a_process("weights", workload):
        _row(*row)


def _weights(workload: Workload) -> List[List[Any]]:
    predictor, lines = _load(workload, 192)
    outputs: List[Any] = []

    def predict(line: str) -> None:
        outputs.append(predictor.predict_json(predictor.load_line(line)))

    with torch.inference_mode():
        rows = [[1, _cpu_per_line(predictor, [[line] for line in lines])]]
        batcher = OperationBatcher(layers_to_share(predictor, is_asked_for=True))
        for size in (2, 4, GROUP_SIZE):
            groups = [lines[i : i + size] for i in range(0, len(lines), size)]
            for _ in range(2):  # the first time, the numbers of rows are tried
                start = time.process_time()
                for group in groups:
                    batcher.run([partial(predict, line) for line in group])
            rows.append([size, f"{1e3 * (time.process_time() - start) / len(lines):.1f}"])
    return rows


def packing() -> None:
    """Batches of 32 of like length, with weights as they are and packed for oneDNN"""
    _table("| model | CPU ms/line | packed, same bits | packed, other last digits |")
    for workload in workloads.prepare(["minilm", "g2p-large"]):
        parts = (f"packing{how}" for how in ("", "_exact", "_whole"))
        _row(workload.name, *(_in_a_process(part, workload) for part in parts))


def _packing(workload: Workload, exact: Optional[bool] = None) -> str:
    predictor, lines = _load(workload, 512)
    lines.sort(key=len)
    batches = [lines[i : i + BATCH_SIZE] for i in range(0, len(lines), BATCH_SIZE)]
    decode_live_beams_only(predictor._model, exact=False)
    with torch.no_grad():
        if exact is not None:
            packed_weights.pack_weights(predictor._model, exact)
            packed_weights.use_packed_weights(predictor._model, exact)
        _cpu_per_line(predictor, batches)  # oneDNN compiles a kernel for each number of rows
        return _cpu_per_line(predictor, batches)


_packing_exact = partial(_packing, exact=True)
_packing_whole = partial(_packing, exact=False)


def ended() -> None:
    """Beam searches that decode all beams until the last one ends, and only those that go on"""
    _table("| model | CPU ms/line | without the beams that have ended | at first |")
    for workload in workloads.prepare(["g2p", "g2p-large"]):
        _row(workload.name, *_in_a_process("ended", workload))


def _ended(workload: Workload) -> List[str]:
    predictor, lines = _load(workload, 512)
    batches = [lines[i : i + BATCH_SIZE] for i in range(0, len(lines), BATCH_SIZE)]
    plain = _cpu_per_line(predictor, batches)
    decode_live_beams_only(predictor._model)
    at_first = _cpu_per_line(predictor, batches)
    return [plain, _cpu_per_line(predictor, batches), at_first]


def _cpu_per_line(predictor: Any, batches: List[List[str]]) -> str:
    start = time.process_time()
    for batch in batches:
        common.predict(predictor, batch)
    return f"{1e3 * (time.process_time() - start) / sum(map(len, batches)):.1f}"


def stragglers() -> None:
    """Input whose long sentences lie together: halves dealt out in advance, and batch by batch"""
    ((workload, lines),) = _sized({"minilm": 192})
    inputs = CACHE / "sorted.jsonl"
    with open(workload.head(lines)) as file:
        inputs.write_text("".join(sorted(file, key=len)))
    _table("| | s | lines/s |")
    for title, name in (("a half for each process", "shards"), ("parallel-predict", None)):
        measured = _contestant(name, workload, inputs)
        _row(title, f"{measured.seconds:.1f}", _speed(measured, lines)[0])


def transfer() -> None:
    """Bringing results back as the model's dictionaries, and as the text that is written"""
    _table("| model | bytes/line | dictionaries, us/line | text, us/line |")
    for workload in workloads.prepare(["g2p", "tagger"]):
        _row(workload.name, *_in_a_process("transfer", workload))


def _transfer(workload: Workload) -> List[str]:
    predictor, lines = _load(workload, 256)
    outputs = predictor.predict_batch_json([predictor.load_line(line) for line in lines])
    texts = [predictor.dump_line(output) for output in outputs]

    def through_a_pipe(value: Any) -> Callable[[], Any]:
        return lambda: pickle.loads(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL))

    costs = [1e6 * _time(through_a_pipe(value)) / len(lines) for value in (outputs, texts)]
    return [f"{sum(map(len, texts)) / len(lines):,.0f}", *(f"{cost:.1f}" for cost in costs)]


def asyncio() -> None:
    """`asyncio.gather` around `predict_json`, and `predict` with batch size 1"""
    _table("| model | | lines/s | CPU ms/line |")
    for workload, lines in _sized({"g2p": 256, "minilm": 128}):
        for title, name in (("asyncio.gather", "asyncio_gather"), ("a loop", "loop")):
            measured = _contestant(name, workload, workload.head(lines), batch_size=1)
            _row(workload.name, title, *_speed(measured, lines))


_ALL = [shipping, fork, threads, weights, packing, padding, ended, stragglers, transfer, asyncio]
EXPERIMENTS: Dict[str, Callable[[], None]] = {function.__name__: function for function in _ALL}


def _sized(lines: Dict[str, int]) -> List[Tuple[Workload, int]]:
    return [(workload, lines[workload.name]) for workload in workloads.prepare(list(lines))]


def _contestant(
    name: Any, workload: Workload, inputs: Path, threads: int = 0, batch_size: int = BATCH_SIZE
) -> measure.Measured:
    contestant = Contestant("", "", None if name == "loop" else name, batch_size=batch_size)
    if name is None:
        contestant = Contestant("", "", None, "parallel-predict", batch_size, settings={})
    output = CACHE / "causes.out"
    command = contestant.command(workload.archive, workload.predictor, inputs, output, WORKERS)
    command += ["--threads", str(threads)] if threads else []
    return measure.run(command, output, LIMIT)


def _speed(measured: measure.Measured, lines: int) -> List[str]:
    if measured.outcome != "ok":
        return [measured.outcome, ""]
    return [f"{measured.steady or 0:.1f}", f"{1e3 * measured.cpu_seconds / lines:.1f}"]


def _in_a_process(part: str, workload: Workload) -> Any:
    """Runs a part in a fresh process with one thread, which has nothing left over from others."""
    env = {**os.environ, **measure.QUIET, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--part", part, "--workload", workload.name]
    output = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, check=True).stdout
    return json.loads(output.decode().splitlines()[-1])


def _load(workload: Workload, number: int) -> Tuple[Any, List[str]]:
    predictor = common.load(str(workload.archive), workload.predictor, threads=1)
    lines = open(workload.head(number)).readlines()
    common.predict(predictor, lines[:4])
    return predictor, lines


def _time(function: Callable[[], Any], times: int = 5) -> float:
    """The shortest of some runs, in CPU seconds."""
    return min(timeit.repeat(function, timer=time.process_time, repeat=times, number=1))


def _table(header: str) -> None:
    print(header + "\n|" + "---|" * (header.count("|") - 1), flush=True)


def _row(*cells: Any) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", nargs="+", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--workload", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(globals()[f"_{args.part}"](*workloads.prepare([args.workload]))))
        return
    print(f"{report.machine()}\n")
    for name in args.only:
        print(f"## {EXPERIMENTS[name].__doc__} (`--only {name}`)\n", flush=True)
        EXPERIMENTS[name]()
        print(flush=True)


if __name__ == "__main__":
    main()
