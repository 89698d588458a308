"""
What the figures of a report mean, in plain words.

Each rule is a function of the report that returns a finding or `None`. A finding says what was
measured, what that means, and which setting to change. A run without findings has nothing to gain
from other settings that the figures would show.
"""

import json
from statistics import median
from typing import Any, Callable, Dict, List, NamedTuple, Optional

from allennlp_parallel_predict.common.stages import (
    FORWARD,
    ORDERING,
    READING,
    RECEIVING,
    SENDING,
    STARTING,
    WAITING,
    WAITING_FOR_INPUT,
    WRITING,
)

Report = Dict[str, Any]


def _typed(**settings: Any) -> str:
    """Settings as one types them; two underscores stand for a dot."""
    values = {key.replace("__", "."): value for key, value in settings.items()}
    return f"--parallel-overrides '{json.dumps(values)}'"


_BUCKET = _typed(batching__type="bucket")


class Finding(NamedTuple):
    """What a rule found."""

    rule: str
    text: str
    setting: str
    """What to change; empty if there is nothing to change."""


Rule = Callable[[Report], Optional[Finding]]


def diagnose(report: Report) -> List[Finding]:
    """The findings of all rules, the gravest first."""
    if not report["workers"]:
        return []
    return [finding for finding in (rule(report) for rule in RULES) if finding is not None]


def swapping(report: Report) -> Optional[Finding]:
    """The machine moved memory to and from the disk."""
    moved = report["swap"]["in"] + report["swap"]["out"]
    if moved < 64 << 20:
        return None
    return Finding(
        "swapping",
        f"The machine swapped {moved / 2**20:,.0f} MB during the run: there is not enough memory, "
        f"and the processes had {report['memory']['pss_bytes'] / 2**20:,.0f} MB of it.",
        f"{_fewer_workers(report)} or a smaller --batch-size; keep executor.share_model true",
    )


def start_up_dominates(report: Report) -> Optional[Finding]:
    """The input is too short to be worth a pool."""
    start_up, predicting = report["seconds"]["start_up"], report["seconds"]["predicting"]
    if start_up < 1.0 or start_up < predicting:
        return None
    return Finding(
        "start-up dominates",
        f"Getting ready took {start_up:.1f} s and predicting {predicting:.1f} s: for "
        f"{report['lines']:,} lines the number of workers makes little difference.",
        "predict more in one run, or keep a pool open with ParallelPredictor",
    )


def oversubscribed(report: Report) -> Optional[Finding]:
    """There are more threads than CPUs."""
    threads = report["num_workers"] * report["threads_per_worker"]
    if threads <= report["cpus"]:
        return None
    return Finding(
        "oversubscribed",
        f"{report['num_workers']} workers with {report['threads_per_worker']} threads each are "
        f"{threads} threads on {report['cpus']} CPUs: they take the CPUs from each other.",
        f"--num-workers {max(1, report['cpus'] // report['threads_per_worker'])}, or "
        + _typed(executor__threads_per_worker=max(1, report["cpus"] // report["num_workers"])),
    )


def starved(report: Report) -> Optional[Finding]:
    """The workers wait because the input comes too slowly."""
    waiting = _waiting_share(report)
    reading = _parent_share(report, READING, WAITING_FOR_INPUT)
    if waiting < 0.25 or reading < 0.5:
        return None
    return Finding(
        "starved by the reader",
        f"The workers waited for work {waiting:.0%} of the time, while the parent was reading the "
        f"input or waiting for it {reading:.0%} of the time: input comes too slowly.",
        "a faster source (a local, uncompressed file; without --use-dataset-reader if the "
        f"predictor can do without), or {_fewer_workers(report)}",
    )


def transfer_dominates(report: Report) -> Optional[Finding]:
    """Moving results costs more than making them is worth."""
    in_workers = _worker_share(report, SENDING, RECEIVING)
    in_parent = _parent_share(report, SENDING, RECEIVING, ORDERING, WRITING)
    if in_workers < 0.2 and (in_parent < 0.6 or _waiting_share(report) < 0.25):
        return None
    per_line = report["bytes"]["from_workers"] / max(1, report["lines"])
    return Finding(
        "result transfer dominates",
        f"The workers spent {in_workers:.0%} of their time on sending and receiving, the parent "
        f"{in_parent:.0%} on taking and writing results; a line's result has {per_line:,.0f} "
        "bytes.",
        "a predictor whose dump_line leaves out what is not needed; a faster disk for "
        f"--output-file; {_fewer_workers(report)}",
    )


def padding_wasted(report: Report) -> Optional[Finding]:
    """Much of what the model computes is padding."""
    share, is_bucket = report["padding"]["share"], report["batching"]["type"] == "bucket"
    forward = _worker_share(report, FORWARD)
    if report["padding"]["skipped"] or share < 0.25 or forward < 0.25:
        return None
    window = 4 * report["batching"].get("window", 2048)
    return Finding(
        "padding",
        f"{share:.0%} of the tokens in the batches were padding, and the model took "
        f"{forward:.0%} of the workers' time.",
        (
            f"{_typed(batching__window=window)}, to choose from more inputs"
            if is_bucket
            else f"{_BUCKET}, which groups inputs of like length (the last digits of floats can "
            "change)"
        ),
    )


def stragglers(report: Report) -> Optional[Finding]:
    """A few long batches kept everybody waiting at the end."""
    workers, predicting = report["num_workers"], report["seconds"]["predicting"]
    idle = report["idle_at_the_end"] / max(1e-9, workers * predicting)
    longest, typical = report["batch_seconds"]["max"], report["batch_seconds"]["p50"]
    if workers < 2 or idle < 0.15 or longest < 3 * typical:
        return None
    slowest = report["slowest_batches"][0]
    return Finding(
        "stragglers",
        f"{idle:.0%} of the workers' time was lost waiting for the last batches. The longest took "
        f"{longest:.2f} s ({slowest['lines']}), a typical one {typical:.2f} s.",
        f"--batch-size {max(1, report['batching'].get('batch_size', 2) // 2)}"
        + (
            ""
            if report["batching"]["type"] == "bucket"
            else f", or {_BUCKET}, which begins with the longest"
        ),
    )


def slow_worker(report: Report) -> Optional[Finding]:
    """One worker is slower than the others with the same kind of work."""
    workers = [worker for worker in report["workers"] if worker["batches"] >= 5]
    if len(workers) < 2:
        return None
    slowest = max(workers, key=lambda worker: worker["median_batch_seconds"])
    others = median(w["median_batch_seconds"] for w in workers if w is not slowest)
    if slowest["median_batch_seconds"] < 1.5 * others:
        return None
    return Finding(
        "one slow worker",
        f"{slowest['name']} (process {slowest['pid']}) took "
        f"{slowest['median_batch_seconds']:.3f} s for its typical batch, the others "
        f"{others:.3f} s: something else uses its CPU or GPU.",
        f"see what else runs there; {_typed(executor__pin_cpus=False)} lets the system move "
        "workers to free CPUs",
    )


def slow_kernels(report: Report) -> Optional[Finding]:
    """The CPU could multiply matrices faster than MKL lets it."""
    forward = _worker_share(report, FORWARD)
    if not report["slow_mkl"] or forward < 0.5 or report["seconds"]["predicting"] < 1.0:
        return None
    return Finding(
        "slow kernels",
        f"The model took {forward:.0%} of the workers' time, and torch's MKL does not use AVX2 on "
        "this CPU, as it is AMD's.",
        f"{_typed(exact=False)}, or MKL_DEBUG_CPU_TYPE=5 in the environment, for allennlp predict "
        "too: matrix products are then up to 2.5 times as fast (the last digits of floats can "
        "change)",
    )


def cpus_taken(report: Report) -> Optional[Finding]:
    """The workers could have computed, but something else had the CPUs."""
    threads = report["num_workers"] * report["threads_per_worker"]
    share = _without_cpu_share(report)
    if threads > report["cpus"] or share < 0.25 or report["seconds"]["predicting"] < 1.0:
        return None
    return Finding(
        "other processes take the CPUs",
        f"The workers could have run, but had to wait for a CPU, {share:.0%} of the time in which "
        f"they had batches; they got {_cpu_share(report):.0%} of a CPU each. All figures here are "
        "those of a busy machine.",
        f"see what else runs there (top), or {_fewer_workers(report)}",
    )


def compute_bound(report: Report) -> Optional[Finding]:
    """All CPUs are busy predicting: that is as good as it gets with these settings."""
    threads = report["num_workers"] * report["threads_per_worker"]
    if threads != report["cpus"] or report["utilisation"] < 0.9:
        return None
    if _worker_share(report, FORWARD) < 0.5 or report["seconds"]["predicting"] < 1.0:
        return None
    if _cpu_share(report) < 0.75 * report["threads_per_worker"]:
        return None
    return Finding(
        "compute-bound",
        f"All {report['cpus']} CPUs were busy with the model {report['utilisation']:.0%} of the "
        "time: more workers would not help.",
        "more CPUs, or a GPU (--cuda-device 0); another --batch-size, if allennlp parallel-tune "
        "says so",
    )


RULES: List[Rule] = [
    swapping,
    start_up_dominates,
    oversubscribed,
    starved,
    transfer_dominates,
    padding_wasted,
    stragglers,
    slow_worker,
    cpus_taken,
    slow_kernels,
    compute_bound,
]


def seconds_at_work(report: Report) -> float:
    """Of all workers together."""
    return float(report["utilisation"] * report["num_workers"] * report["seconds"]["predicting"])


def _fewer_workers(report: Report) -> str:
    return f"--num-workers {max(1, report['num_workers'] // 2)}"


def _cpu_share(report: Report) -> float:
    """The CPUs that each worker used, of the time that it was at work or starting."""
    seconds = seconds_at_work(report) + report["stages"].get(STARTING, 0.0)
    return float(sum(worker["cpu_seconds"] for worker in report["workers"]) / max(1e-9, seconds))


def _without_cpu_share(report: Report) -> float:
    """Of the time that the workers were at work, for each of their threads."""
    seconds = seconds_at_work(report) * max(1, report["threads_per_worker"])
    return float(
        sum(worker["cpu_wait_seconds"] for worker in report["workers"]) / max(1e-9, seconds)
    )


def _waiting_share(report: Report) -> float:
    """Of the workers' time while there was work for them."""
    waiting = report["stages"].get(WAITING, 0.0) - report["idle_at_the_end"]
    return float(waiting / max(1e-9, report["num_workers"] * report["seconds"]["predicting"]))


def _worker_share(report: Report, *stages: str) -> float:
    """Of the time that the workers were at work."""
    seconds = sum(report["stages"].get(stage, 0.0) for stage in stages)
    return float(seconds / max(1e-9, seconds_at_work(report)))


def _parent_share(report: Report, *stages: str) -> float:
    seconds = sum(report["parent"]["stages"].get(stage, 0.0) for stage in stages)
    return float(seconds / max(1e-9, report["seconds"]["predicting"]))
