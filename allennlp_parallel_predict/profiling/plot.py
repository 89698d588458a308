"""
A timeline as a picture: a row for each process, and below it the shares of the stages, whose bars
are the legend too.

A moment's column is filled in proportion to what the process was at, so the picture of a long run,
where a column is many batches, is as true as that of a short one, where a batch is many columns.
"""

import html
import io
from typing import Any, Dict, List, Sequence, Tuple

import numpy

from allennlp_parallel_predict.common import stages
from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.stages import PARENT_STAGES, WORKER_STAGES
from allennlp_parallel_predict.common.stopwatch import Span
from allennlp_parallel_predict.profiling.recorder import RunProfile, Timeline
from allennlp_parallel_predict.profiling.render import render
from allennlp_parallel_predict.profiling.report import Report

_FORMATS = (".png", ".svg", ".html")
_COLOURS = {
    stages.FORWARD: "#3a6fb0",
    stages.LOAD_LINE: "#7fc4d6",
    stages.TO_INSTANCE: "#2f9c95",
    stages.INDEXING: "#86b84f",
    stages.TO_DEVICE: "#c3c94a",
    stages.READABLE: "#f2b134",
    stages.SPLITTING: "#f7d58b",
    stages.SANITIZE: "#e07f3e",
    stages.PREDICTOR: "#8a5a3b",
    stages.DUMP_LINE: "#c0392b",
    stages.SENDING: "#8e5bb0",
    stages.RECEIVING: "#c9a6dd",
    stages.STARTING: "#b8ab98",
    stages.WAITING: "#e4e4e4",
    stages.OTHER: "#5c5c5c",
    stages.IMPORTS: "#cdbb98",
    stages.EXTRACTING: "#a98f63",
    stages.LOADING: "#86703f",
    stages.STARTING_WORKERS: "#b8ab98",
    stages.READING: "#7fc4d6",
    stages.WAITING_FOR_INPUT: "#f3c9c4",
    stages.WAITING_FOR_WORKERS: "#e4e4e4",
    stages.ORDERING: "#86b84f",
    stages.WRITING: "#c0392b",
    stages.ENDING: "#b8ab98",
}
_STAGES = list(dict.fromkeys([*WORKER_STAGES, *PARENT_STAGES]))
_LEVELS = 24
"""The steps in which a column is filled."""
_COLUMNS = 1400
_LEFT, _RIGHT = 1, 6
"""The widths of the time to get ready and of the time to predict: each has its own scale."""


def check_plot(path: str) -> None:
    """
    # Raises

    `SettingsError`
        If no picture can be drawn, or not in this format.
    """
    if not path.endswith(_FORMATS):
        raise SettingsError(f"--profile-plot draws {', '.join(_FORMATS)} files, not {path}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SettingsError(
            "--profile-plot needs matplotlib: pip install 'allennlp-parallel-predict[plot]'"
        ) from error


def plot(profile: RunProfile, report: Report, path: str) -> None:
    """
    Draws a profile with a timeline.

    # Parameters

    profile : `RunProfile`
        The profile, which is finished.
    report : `Report`
        Its report.
    path : `str`
        A .png, .svg or .html file, which is written.
    """
    check_plot(path)
    figure = _draw(profile, report)
    if not path.endswith(".html"):
        figure.savefig(path, dpi=120)
        return
    picture = io.StringIO()
    figure.savefig(picture, format="svg")
    svg = picture.getvalue()
    with open(path, "w", encoding="utf-8") as file:
        file.write(
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            "<title>allennlp parallel-predict: profile</title>"
            "<style>body { margin: 1em auto; max-width: 75em; font-family: sans-serif }"
            " svg { width: 100%; height: auto } pre { overflow-x: auto }</style></head><body>\n"
            f"{svg[svg.index('<svg'):]}<pre>{html.escape(render(report))}</pre></body></html>\n"
        )


def _draw(profile: RunProfile, report: Report) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    workers = sorted(profile.workers.values(), key=lambda track: track.start)
    tracks = [profile.parent, *workers]
    since, until = profile.predicted()
    small = len(tracks) <= 10
    shown = [_shown(report["stages"]), _shown(report["parent"]["stages"])]
    # All heights in inches, from the top: title, timeline, and the bars of the stages.
    rows = max(map(len, shown))
    heights = [0.8, max(0.9, len(tracks) * (0.36 if small else 0.22)), 0.8, 0.22 * rows, 0.15]
    figure = Figure(figsize=(12, sum(heights)), facecolor="white")
    FigureCanvasAgg(figure)
    from_top = 1 - numpy.cumsum(heights) / sum(heights)
    figure.text(
        0.015, 1 - 0.3 / sum(heights), _title(report), fontsize=12, weight="bold", va="center"
    )
    upper = figure.add_gridspec(
        1,
        2,
        width_ratios=[_LEFT, _RIGHT],
        wspace=0.02,
        left=0.085,
        right=0.955,
        top=from_top[0],
        bottom=from_top[1],
    )
    axes = [figure.add_subplot(upper[column]) for column in range(2)]
    spans = [(profile.parent.start, since), (since, until)]
    for axis, span, title in zip(axes, spans, ("getting ready", "predicting")):
        _draw_timeline(axis, tracks, span, title)
    labels = ["parent", *(worker["name"] for worker in report["workers"])]
    axes[0].set_yticks(range(len(tracks)))
    axes[0].set_yticklabels(labels, fontsize=9 if small else 7)
    axes[1].set_yticks([])
    busy = ["busy", *(f"{worker['utilisation']:.0%}" for worker in report["workers"])]
    for row, text in enumerate(busy):
        axes[1].text(
            1.006,
            row,
            text,
            fontsize=9 if small else 7,
            va="center",
            transform=axes[1].get_yaxis_transform(),
        )
    lower = figure.add_gridspec(
        1, 2, wspace=0.4, left=0.19, right=0.97, top=from_top[2], bottom=from_top[3]
    )
    for column, title in enumerate(("workers, all together", "parent")):
        _draw_shares(figure.add_subplot(lower[column]), shown[column], title, rows)
    return figure


def _title(report: Report) -> str:
    return (
        f"{report['lines']:,} lines at {report['lines_per_second']:,.0f} lines/s: "
        f"{report['executor']}, batches of {report['batching'].get('batch_size', '?')} "
        f"({report['batching']['type']})"
    )


def _draw_timeline(
    axis: Any, tracks: Sequence[Timeline], span: Tuple[float, float], title: str
) -> None:
    start, end = span
    end = max(end, start + 1e-3)
    edges = numpy.linspace(start, end, _COLUMNS + 1)
    gap = numpy.full((_LEVELS // 5, _COLUMNS, 3), 255, dtype=numpy.uint8)
    rows = [numpy.concatenate([_row(track.spans, edges), gap]) for track in tracks]
    axis.imshow(
        numpy.concatenate(rows),
        aspect="auto",
        interpolation="nearest",
        extent=(0, end - start, len(tracks) - 0.5, -0.5),
    )
    axis.set_xlim(0, end - start)
    axis.set_title(f"{title}: {end - start:,.2f} s", fontsize=9, loc="left", color="#333333")
    axis.locator_params(axis="x", nbins=2 if title == "getting ready" else 10)
    axis.tick_params(labelsize=8, length=2)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.tick_params(axis="y", length=0)


def _row(spans: Sequence[Span], edges: Any) -> Any:
    """A row of the timeline as pixels."""
    width = edges[1] - edges[0]
    by_stage: Dict[str, List[Span]] = {}
    for item in spans:
        by_stage.setdefault(item.stage, []).append(item)
    shares = numpy.zeros((len(_STAGES), len(edges) - 1))
    for number, stage in enumerate(_STAGES):
        if stage in by_stage:
            shares[number] = _seconds(by_stage[stage], edges) / width
    # The moments between two stages are too short to be spans.
    total = shares.sum(axis=0)
    shares = numpy.where(total > 0.5, shares / numpy.maximum(total, 1e-9), shares)
    # What is at a height is the first stage whose sum with those before it reaches that high.
    heights = (numpy.arange(_LEVELS) + 0.5) / _LEVELS
    reached = numpy.cumsum(shares, axis=0)[None] > heights[:, None, None]
    index = numpy.where(reached.any(axis=1), reached.argmax(axis=1), len(_STAGES))
    return _palette()[index][::-1]


def _seconds(spans: Sequence[Span], edges: Any) -> Any:
    """How long a stage took between each two edges."""
    times = numpy.array([(item.start, item.end) for item in spans]).ravel()
    steps = numpy.array([(0.0, item.end - item.start) for item in spans]).ravel()
    return numpy.diff(numpy.interp(edges, times, numpy.cumsum(steps)))


def _palette() -> Any:
    colours = [_COLOURS[stage] for stage in _STAGES] + ["#ffffff"]
    return numpy.array(
        [[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in colours], dtype=numpy.uint8
    )


def _shown(stages: Dict[str, float]) -> Dict[str, float]:
    """Without what nobody could see."""
    total = sum(stages.values())
    return {stage: seconds for stage, seconds in stages.items() if seconds >= 0.0005 * total}


def _draw_shares(axis: Any, stages: Dict[str, float], title: str, height: int) -> None:
    total = max(1e-9, sum(stages.values()))
    rows = list(stages)
    values = [stages[stage] / total for stage in rows]
    axis.barh(range(len(rows)), values, color=[_COLOURS[stage] for stage in rows], height=0.72)
    for row, (stage, value) in enumerate(zip(rows, values)):
        label = f" {value:.1%}   {stages[stage]:,.2f} s"
        axis.text(value, row, label, fontsize=8, va="center")
    axis.set_yticks(range(len(rows)))
    axis.set_yticklabels(rows, fontsize=8)
    axis.set_xlim(0, max(values, default=1.0) * 1.3)
    axis.set_ylim(height - 0.5, -0.5)
    axis.set_xticks([])
    axis.set_title(title, fontsize=9, loc="left", color="#333333")
    axis.tick_params(axis="y", length=0)
    for side in ("top", "right", "bottom", "left"):
        axis.spines[side].set_visible(False)
