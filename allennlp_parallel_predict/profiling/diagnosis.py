"""
What the figures of a report mean, in plain words.

Each rule says when it holds, what that means, and which setting to change. A run to which none
applies has nothing to gain from other settings that the figures would show.
"""

import json
from statistics import median
from typing import Any, Callable, Dict, List, NamedTuple

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
Facts = Dict[str, Any]


class Finding(NamedTuple):
    """A rule that holds for a run."""

    rule: str
    text: str
    setting: str
    """What to change."""


class Rule(NamedTuple):
    """`text` and `setting` are filled in with the facts by which `holds` decides."""

    name: str
    holds: Callable[[Facts], bool]
    text: str
    setting: str


def diagnose(report: Report) -> List[Finding]:
    """The findings of all rules, the gravest first."""
    if not report["workers"]:
        return []
    facts = _facts(report)
    return [
        Finding(rule.name, rule.text.format(**facts), rule.setting.format(**facts))
        for rule in RULES
        if rule.holds(facts)
    ]


RULES = [
    Rule(
        "swapping",
        lambda facts: facts["swapped"] >= 64,
        "The machine swapped {swapped:,.0f} MB during the run: there is not enough memory, and the "
        "processes had {memory:,.0f} MB of it.",
        "{fewer_workers} or a smaller --batch-size; keep executor.share_model true",
    ),
    Rule(
        "start-up dominates",
        lambda facts: facts["start_up"] >= max(1.0, facts["predicting"]),
        "Getting ready took {start_up:.1f} s and predicting {predicting:.1f} s: for {lines:,} "
        "lines the number of workers makes little difference.",
        "predict more in one run, or keep a pool open with ParallelPredictor",
    ),
    Rule(
        "oversubscribed",
        lambda facts: facts["all_threads"] > facts["cpus"],
        "{num_workers} workers with {threads_per_worker} threads each are {all_threads} threads on "
        "{cpus} CPUs: they take the CPUs from each other.",
        "--num-workers {enough_workers}, or {enough_threads}",
    ),
    Rule(
        "starved by the reader",
        lambda facts: facts["waiting"] >= 0.25 and facts["reading"] >= 0.5,
        "The workers waited for work {waiting:.0%} of the time, while the parent was reading the "
        "input or waiting for it {reading:.0%} of the time: input comes too slowly.",
        "a faster source (a local, uncompressed file; without --use-dataset-reader if the "
        "predictor can do without), or {fewer_workers}",
    ),
    Rule(
        "result transfer dominates",
        lambda facts: facts["sending"] >= 0.2
        or (facts["taking"] >= 0.6 and facts["waiting"] >= 0.25),
        "The workers spent {sending:.0%} of their time on sending and receiving, the parent "
        "{taking:.0%} on taking and writing results; a line's result has {bytes_per_line:,.0f} "
        "bytes.",
        "a predictor whose dump_line leaves out what is not needed; a faster disk for "
        "--output-file; {fewer_workers}",
    ),
    Rule(
        "padding",
        lambda facts: facts["padding"] >= 0.25 and facts["forward"] >= 0.25,
        "{padding:.0%} of the tokens in the batches were padding, and the model took {forward:.0%} "
        "of the workers' time.",
        "{less_padding}",
    ),
    Rule(
        "stragglers",
        lambda facts: facts["num_workers"] > 1
        and facts["idle_at_the_end"] >= 0.15
        and facts["longest"] >= 3 * facts["typical"],
        "{idle_at_the_end:.0%} of the workers' time was lost waiting for the last batches. The "
        "longest took {longest:.2f} s ({longest_lines}), a typical one {typical:.2f} s.",
        "{smaller_batches}{or_bucket}",
    ),
    Rule(
        "one slow worker",
        lambda facts: facts["slow_worker"] >= 1.5 * facts["other_workers"] > 0,
        "{slow_name} (process {slow_pid}) took {slow_worker:.3f} s for its typical batch, the "
        "others {other_workers:.3f} s: something else uses its CPU or GPU.",
        "see what else runs there; {no_pinning} lets the system move workers to free CPUs",
    ),
    Rule(
        "other processes take the CPUs",
        lambda facts: facts["all_threads"] <= facts["cpus"]
        and facts["without_cpu"] >= 0.25
        and facts["predicting"] >= 1.0,
        "The workers could have run, but had to wait for a CPU, {without_cpu:.0%} of the time in "
        "which they had batches; they got {with_cpu:.0%} of a CPU each. All figures here are those "
        "of a busy machine.",
        "see what else runs there (top), or {fewer_workers}",
    ),
    Rule(
        "slow kernels",
        lambda facts: facts["slow_mkl"] and facts["forward"] >= 0.5 and facts["predicting"] >= 1.0,
        "The model took {forward:.0%} of the workers' time, and torch's MKL does not use AVX2 on "
        "this CPU, as it is AMD's.",
        "{inexact}, or MKL_DEBUG_CPU_TYPE=5 in the environment, for allennlp predict too: matrix "
        "products are then up to 2.5 times as fast (the last digits of floats can change)",
    ),
    Rule(
        "compute-bound",
        lambda facts: facts["all_threads"] == facts["cpus"]
        and facts["utilisation"] >= 0.9
        and facts["forward"] >= 0.5
        and facts["predicting"] >= 1.0
        and facts["with_cpu"] >= 0.75 * facts["threads_per_worker"],
        "All {cpus} CPUs were busy with the model {utilisation:.0%} of the time: more workers "
        "would not help.",
        "more CPUs, or a GPU (--cuda-device 0); another --batch-size, if allennlp parallel-tune "
        "says so",
    ),
]


def seconds_at_work(report: Report) -> float:
    """Of all workers together."""
    return float(report["utilisation"] * report["num_workers"] * report["seconds"]["predicting"])


def _facts(report: Report) -> Facts:
    workers, threads, cpus = (report[k] for k in ("num_workers", "threads_per_worker", "cpus"))
    predicting = report["seconds"]["predicting"]
    at_work, available = seconds_at_work(report), workers * predicting
    batches, starting = report["batch_seconds"], report["stages"].get(STARTING, 0.0)
    cpu, without_cpu = (
        sum(worker[key] for worker in report["workers"])
        for key in ("cpu_seconds", "cpu_wait_seconds")
    )

    def in_workers(*stages: str) -> float:
        return _share(sum(report["stages"].get(stage, 0.0) for stage in stages), at_work)

    def in_parent(*stages: str) -> float:
        of_parent = report["parent"]["stages"]
        return _share(sum(of_parent.get(stage, 0.0) for stage in stages), predicting)

    return {
        **report,
        **report["seconds"],
        **_slowest(report["workers"]),
        **_remedies(report),
        "all_threads": workers * threads,
        "swapped": sum(report["swap"].values()) / 2**20,
        "memory": report["memory"]["pss_bytes"] / 2**20,
        "bytes_per_line": report["bytes"]["from_workers"] / max(1, report["lines"]),
        # Of the workers' time while there was work for them.
        "waiting": _share(
            report["stages"].get(WAITING, 0.0) - report["idle_at_the_end"], available
        ),
        "idle_at_the_end": _share(report["idle_at_the_end"], available),
        # Of the time that the workers were at work.
        "forward": in_workers(FORWARD),
        "sending": in_workers(SENDING, RECEIVING),
        "without_cpu": _share(without_cpu, at_work * max(1, threads)),
        "with_cpu": _share(cpu, at_work + starting),
        "reading": in_parent(READING, WAITING_FOR_INPUT),
        "taking": in_parent(SENDING, RECEIVING, ORDERING, WRITING),
        "padding": 0.0 if report["padding"]["skipped"] else report["padding"]["share"],
        "longest": batches["max"],
        "typical": batches["p50"],
        "longest_lines": report["slowest_batches"][0]["lines"],
    }


def _share(part: float, whole: float) -> float:
    return float(part / max(1e-9, whole))


def _slowest(workers: List[Dict[str, Any]]) -> Facts:
    """The worker whose typical batch takes longest, beside the others."""
    workers = [worker for worker in workers if worker["batches"] >= 5]
    if len(workers) < 2:
        return {"slow_worker": 0.0, "other_workers": 0.0}
    slowest = max(workers, key=lambda worker: worker["median_batch_seconds"])
    return {
        "slow_name": slowest["name"],
        "slow_pid": slowest["pid"],
        "slow_worker": slowest["median_batch_seconds"],
        "other_workers": median(w["median_batch_seconds"] for w in workers if w is not slowest),
    }


def _remedies(report: Report) -> Dict[str, str]:
    """Settings as one types them."""
    workers, threads, cpus = (report[k] for k in ("num_workers", "threads_per_worker", "cpus"))
    batching, bucket = report["batching"], _typed("batching.type", "bucket")
    is_bucket = batching["type"] == "bucket"
    window = _typed("batching.window", 4 * batching.get("window", 2048))
    smaller_batches = f"--batch-size {max(1, batching.get('batch_size', 2) // 2)}"
    if batching.get("max_tokens"):
        smaller_batches = _typed("batching.max_tokens", max(1, batching["max_tokens"] // 2))
    return {
        "fewer_workers": f"--num-workers {max(1, workers // 2)}",
        "enough_workers": str(max(1, cpus // max(1, threads))),
        "enough_threads": _typed("executor.threads_per_worker", max(1, cpus // workers)),
        "no_pinning": _typed("executor.pin_cpus", False),
        "inexact": _typed("exact", False),
        "smaller_batches": smaller_batches,
        "or_bucket": "" if is_bucket else f", or {bucket}, which begins with the longest",
        "less_padding": (
            f"{window}, to choose from more inputs"
            if is_bucket
            else f"{bucket}, which groups inputs of like length (the last digits of floats can "
            "change)"
        ),
    }


def _typed(key: str, value: Any) -> str:
    return f"--parallel-overrides '{json.dumps({key: value})}'"
