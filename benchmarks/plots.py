"""Draws the results."""

import textwrap
from pathlib import Path
from typing import Any, List, Tuple

import matplotlib

matplotlib.use("svg")

import matplotlib.pyplot as plt  # noqa: E402

from benchmarks.report import TITLES, Results  # noqa: E402

_OURS, _PREDICT, _OTHER = "#0b6e4f", "#c8553d", "#9aa5b1"
_STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "svg.hashsalt": "benchmarks",  # the same figures give the same file
}


def draw(results: Results, folder: Path) -> List[Tuple[str, str]]:
    """Writes each plot as SVG and PNG; returns names and titles."""
    with plt.rc_context(_STYLE):
        return [
            _save(_throughput(results), folder, "throughput", "Steady throughput"),
            _save(_times(results), folder, "time", "Time to the first prediction and to the end"),
            _save(_memory(results), folder, "memory", "Memory of all processes"),
        ]


def _save(figure: Any, folder: Path, name: str, title: str) -> Tuple[str, str]:
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
    figure.savefig(folder / f"{name}.png", dpi=150)
    plt.close(figure)
    return name, title


def _panels(results: Results, title: str, label: str) -> Any:
    """A figure with a panel for each workload, and its axes."""
    workloads = list(results.workloads)
    columns = min(2, len(workloads))
    rows = -(-len(workloads) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(6.2 * columns, 4.0 * rows), squeeze=False, layout="constrained"
    )
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12)
    flat = list(axes.flat)
    for unused in flat[len(workloads) :]:
        unused.axis("off")
    for axis, workload in zip(flat, workloads):
        axis.set_title(textwrap.fill(_capitalized(results.workloads[workload]["title"]), 36))
        axis.set_xlabel(label)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="#e3e6ea", linewidth=0.8)
        axis.set_axisbelow(True)
    return figure, list(zip(flat, workloads))


def _bars(axis: Any, names: List[str]) -> None:
    """Labels the bars and puts the first one on top."""
    axis.set_yticks(range(len(names)), [_short(name) for name in names])
    for label, name in zip(axis.get_yticklabels(), names):
        if name.startswith("ours"):
            label.set_fontweight("bold")
    axis.set_ylim(len(names) - 0.4, -0.6)


def _throughput(results: Results) -> Any:
    figure, panels = _panels(
        results, "Steady throughput, without start-up (longer is better)", "lines/s"
    )
    for axis, workload in panels:
        names = results.contestants(workload)
        base = results.figures(workload, "predict").median("steady")
        widest = 0.0
        for y, name in enumerate(names):
            figures = results.figures(workload, name)
            values = figures.values("steady")
            if not values:
                outcome = figures.problem["outcome"] if figures.problem else ""
                axis.text(0, y, f" {outcome}", va="center", color=_PREDICT)
                continue
            value = figures.median("steady")
            axis.barh(y, value, color=_color(name), height=0.7)
            axis.hlines(y, min(values), max(values), color="#222222", linewidth=1.2)
            ratio = f" ({value / base:.2f} x)" if base and name != "predict" else ""
            digits = ".0f" if value >= 100 else ".1f"
            axis.text(max(values), y, f"  {value:{digits}}{ratio}", va="center", fontsize=8)
            widest = max(widest, *values)
        _bars(axis, names)
        axis.set_xlim(0, widest * 1.25)
    return figure


def _times(results: Results) -> Any:
    figure, panels = _panels(
        results,
        "Seconds to the first prediction (dark) and to the end (light) (shorter is better)",
        "seconds",
    )
    for axis, workload in panels:
        names = results.contestants(workload)
        for y, name in enumerate(names):
            figures = results.figures(workload, name)
            if not figures.rows:
                outcome = figures.problem["outcome"] if figures.problem else ""
                axis.text(0, y, f" {outcome}", va="center", color=_PREDICT)
                continue
            whole, first = figures.median("seconds"), figures.median("first") or 0.0
            axis.barh(y, whole, color=_color(name), height=0.7, alpha=0.45)
            axis.barh(y, first, color=_color(name), height=0.7)
            axis.text(whole, y, f"  {whole:.1f}", va="center", fontsize=8)
        _bars(axis, names)
        axis.margins(x=0.1)
    return figure


def _memory(results: Results) -> Any:
    figure, panels = _panels(
        results, "Peak proportional set size of all processes (shorter is better)", "MB"
    )
    for axis, workload in panels:
        names = results.contestants(workload)
        for y, name in enumerate(names):
            value = results.figures(workload, name).median("pss")
            if value is not None:
                axis.barh(y, value, color=_color(name), height=0.7)
                axis.text(value, y, f"  {value:,.0f}", va="center", fontsize=8)
        _bars(axis, names)
        axis.margins(x=0.12)
    return figure


def _color(name: str) -> str:
    if name.startswith("ours"):
        return _OURS
    return _PREDICT if name == "predict" else _OTHER


def _short(name: str) -> str:
    return TITLES[name].replace("batch size", "batch").replace("predictor sent", "sends predictor")


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
