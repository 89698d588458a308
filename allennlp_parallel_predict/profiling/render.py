"""A report as a text for a terminal."""

import textwrap
from typing import Any, Dict, List, Sequence

from allennlp_parallel_predict.profiling.report import Report

_MAX_ROWS = 32
"""Workers that are listed one by one."""


def render(report: Report) -> str:
    """The report as the lines that `--profile` prints at the end."""
    seconds = report["seconds"]
    parts = [
        f"Profile: {report['lines']:,} lines in {seconds['wall']:.1f} s "
        f"({seconds['start_up']:.1f} s to get ready, {seconds['predicting']:.1f} s to predict "
        f"them: {report['lines_per_second']:,.1f} lines/s)\n  {run_of(report)}",
        _stages("workers, all together", report["stages"]),
        _stages("parent", report["parent"]["stages"]),
        _workers(report),
        _facts(report),
        _slowest(report["slowest_batches"][:5]),
        _diagnosis(report["diagnosis"]),
    ]
    return "\n\n".join(part for part in parts if part)


def run_of(report: Report) -> str:
    """How it was run, in a line."""
    batching = report["batching"]
    size = batching.get("batch_size", "?")
    if batching.get("max_tokens"):
        size = f"up to {batching['max_tokens']:,} {batching['length']}"
    precision = f", {report['precision']}" if report.get("precision", "fp32") != "fp32" else ""
    return f"{report['executor']}, batches of {size}, {batching['type']}{precision}"


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Columns that are wide enough; all but the first are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        lines.append(indent + "  ".join(cells).rstrip())
    return "\n".join(lines)


def megabytes(size: float) -> str:
    return f"{size / 2**20:,.0f} MB" if size >= 10 << 20 else f"{size / 2**20:,.2f} MB"


def _stages(title: str, stages: Dict[str, float]) -> str:
    total = sum(stages.values())
    rows = [[title, "seconds", "share"]]
    for stage, seconds in stages.items():
        rows.append([f"  {stage}", f"{seconds:.2f}", f"{seconds / max(total, 1e-9):.1%}"])
    return table(rows) if stages else ""


def _workers(report: Report) -> str:
    rows = [["process", "busy", "lines", "lines/s", "CPU s", "memory (PSS)", "shared"]]
    for worker in report["workers"][:_MAX_ROWS]:
        rate = f"{worker['lines_per_second']:,.1f}"
        busy = f"{worker['utilisation']:.0%}"
        rows.append([worker["name"], busy, f"{worker['lines']:,}", rate, *_resources(worker)])
    if len(report["workers"]) > _MAX_ROWS:
        rows.append([f"{len(report['workers']) - _MAX_ROWS} more", *[""] * 6])
    if not report["in_process"]:
        rows.append(["parent", "", "", "", *_resources(report["parent"])])
    cpu, memory = f"{report['cpu_seconds']:.1f}", report["memory"]
    total = [cpu, megabytes(memory["pss_bytes"]), f"{memory['shared']:.0%}"]
    return table([*rows, ["all", f"{report['utilisation']:.0%}", "", "", *total]])


def _resources(process: Dict[str, Any]) -> List[str]:
    memory = process["memory"]
    cpu = f"{process['cpu_seconds']:.1f}"
    if memory is None:
        return [cpu, "gone", ""]
    return [cpu, megabytes(memory["pss"]), f"{1 - memory['uss'] / max(1, memory['rss']):.0%}"]


def _facts(report: Report) -> str:
    times, moved = report["batch_seconds"], report["bytes"]
    facts = []
    if times:
        facts.append(
            f"  batches: {report['batches']:,}; seconds of one: median {times['p50']:.3f}, "
            f"90 % under {times['p90']:.3f}, 99 % under {times['p99']:.3f}, longest "
            f"{times['max']:.3f}"
        )
    if report["padding"]["with_padding"]:
        facts.append(f"  padding: {report['padding']['share']:.1%} of the tokens in the batches")
    if moved["to_workers"]:
        facts.append(
            f"  moved: {megabytes(moved['to_workers'])} to the workers, "
            f"{megabytes(moved['from_workers'])} back"
        )
    return "\n".join(facts)


def _slowest(batches: Sequence[Dict[str, Any]]) -> str:
    rows = [["slowest batches", "seconds", "inputs", "tokens: shortest, mean, longest", "by"]]
    for batch in batches:
        tokens = batch["tokens"]
        lengths = (
            f"{tokens['shortest']}, {tokens['mean']:.0f}, {tokens['longest']}" if tokens else ""
        )
        row = [f"  {batch['lines']}", f"{batch['seconds']:.3f}", str(batch["inputs"]), lengths]
        rows.append([*row, batch["worker"]])
    return table(rows) if batches else ""


def _diagnosis(findings: Sequence[Dict[str, str]]) -> str:
    if not findings:
        return "Diagnosis: nothing that other settings would obviously improve."
    lines = ["Diagnosis"]
    for finding in findings:
        lines += _wrap(f"{finding['rule']}: {finding['text']}", "  ")
        lines += _wrap(f"-> {finding['setting']}", "     ")
    return "\n".join(lines)


def _wrap(text: str, indent: str) -> List[str]:
    return textwrap.wrap(text, 100, initial_indent=indent, subsequent_indent="     ")
