"""`allennlp parallel-compare A.json B.json`: two profiles by stage, with ratios."""

import json
from typing import Any, List, Sequence

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.stages import PARENT_STAGES, WORKER_STAGES
from allennlp_parallel_predict.profiling.diagnosis import seconds_at_work
from allennlp_parallel_predict.profiling.render import megabytes, run_of, table
from allennlp_parallel_predict.profiling.report import VERSION, Report


def read_report(path: str) -> Report:
    """
    # Raises

    `SettingsError`
        If the file is no report.
    """
    try:
        with open(path) as file:
            report = json.load(file)
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read the profile {path}: {error}") from error
    if not isinstance(report, dict) or report.get("version") != VERSION:
        raise SettingsError(f"{path} is not what --profile FILE.json writes")
    return report


def compare(a: Report, b: Report, name_a: str = "A", name_b: str = "B") -> str:
    """Both reports as a table; a ratio of 2 means that B has twice as much."""
    runs = [("A", name_a, a), ("B", name_b, b)]
    titles = [f"{x}: {name}: {r['lines']:,} lines, {run_of(r)}" for x, name, r in runs]
    parts = ["\n".join(titles), table(_overall(a, b))]
    for title, stages, order in (
        ("workers, seconds", [report["stages"] for report in (a, b)], WORKER_STAGES),
        ("parent, seconds", [report["parent"]["stages"] for report in (a, b)], PARENT_STAGES),
    ):
        rows = [[title, "A", "B", "B/A"]]
        for stage in order:
            pair = [found.get(stage, 0.0) for found in stages]
            if any(pair):
                rows.append(_row(f"  {stage}", pair))
        rows.append(_row("  all", [sum(found.values()) for found in stages]))
        parts.append(table(rows))
    return "\n\n".join(parts)


def _overall(a: Report, b: Report) -> List[Sequence[str]]:
    def row(title: str, get: Any, form: str = "{:.2f}") -> Sequence[str]:
        return _row(title, [get(a), get(b)], form)

    memory = [report["memory"]["pss_bytes"] for report in (a, b)]
    return [
        ["the whole run", "A", "B", "B/A"],
        row("  lines/s while predicting", lambda r: r["lines_per_second"], "{:,.1f}"),
        row("  seconds in all", lambda r: r["seconds"]["wall"]),
        row("  seconds to get ready", lambda r: r["seconds"]["start_up"]),
        row("  seconds to predict", lambda r: r["seconds"]["predicting"]),
        row("  CPU seconds", lambda r: r["cpu_seconds"]),
        row(
            "  worker ms a line",
            lambda r: 1000 * seconds_at_work(r) / max(1, r["lines"]),
            "{:.3f}",
        ),
        row("  utilisation", lambda r: r["utilisation"], "{:.0%}"),
        row("  padding", lambda r: r["padding"]["share"], "{:.1%}"),
        ["  memory (PSS)", *map(megabytes, memory), _ratio(*memory)],
    ]


def _row(title: str, pair: Sequence[float], form: str = "{:.2f}") -> List[str]:
    return [title, *(form.format(value) for value in pair), _ratio(*pair)]


def _ratio(a: float, b: float) -> str:
    return f"{b / a:.2f}" if a else ""
