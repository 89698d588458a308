"""
A timeline as a picture: a row for each process, and below it the shares of the stages, whose bars
are the legend too.
"""

import html
import io
from typing import Any, Dict, Sequence

from allennlp_parallel_predict.common import stages
from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.stopwatch import coarsen
from allennlp_parallel_predict.profiling.recorder import RunProfile, Timeline
from allennlp_parallel_predict.profiling.render import render, title
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
_COLUMNS = 1200
"""Moments that a row shows: of what is shorter, the longest stage in each of them."""
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>allennlp parallel-predict: profile</title>
<style>body {{ margin: 1em auto; max-width: 75em; font-family: sans-serif }}
svg {{ width: 100%; height: auto }} pre {{ overflow-x: auto }}</style></head>
<body>
{svg}<pre>{text}</pre></body></html>
"""


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
    """Draws a profile with a timeline, which is finished, and its report into a file."""
    check_plot(path)
    figure = _draw(profile, report)
    if not path.endswith(".html"):
        figure.savefig(path, dpi=120)
        return
    picture = io.StringIO()
    figure.savefig(picture, format="svg")
    svg = picture.getvalue()
    with open(path, "w", encoding="utf-8") as file:
        file.write(_PAGE.format(svg=svg[svg.index("<svg") :], text=html.escape(render(report))))


def _draw(profile: RunProfile, report: Report) -> Any:
    from matplotlib.figure import Figure

    workers = sorted(profile.workers.values(), key=lambda track: track.start)
    shares = [_shares(report["stages"]), _shares(report["parent"]["stages"])]
    # In inches: the timeline, and the bars of the stages.
    heights = [1.0 + 0.25 * (1 + len(workers)), 0.6 + 0.2 * max(map(len, shares))]
    figure = Figure(figsize=(12, sum(heights) + 0.8), constrained_layout=True)
    figure.suptitle(title(report), fontsize=11)
    grid = figure.add_gridspec(2, 2, height_ratios=heights)
    timeline = figure.add_subplot(grid[0, :])
    _draw_timeline(timeline, [profile.parent, *workers], profile.predicted()[0])
    labels = [f"{worker['name']}, {worker['utilisation']:.0%} busy" for worker in report["workers"]]
    timeline.set_yticks(range(1 + len(workers)))
    timeline.set_yticklabels(["parent", *labels], fontsize=8)
    left = figure.add_subplot(grid[1, 0])
    right = figure.add_subplot(grid[1, 1], sharex=left)  # one scale, so that bars can be compared
    for axis, share, name in (
        (left, shares[0], "workers, all together"),
        (right, shares[1], "parent"),
    ):
        _draw_shares(axis, share, name)
    return figure


def _draw_timeline(axis: Any, tracks: Sequence[Timeline], predicting_since: float) -> None:
    start, end = tracks[0].start, max(track.end for track in tracks)
    for row, track in enumerate(tracks):
        spans = coarsen(track.spans, (end - start) / _COLUMNS)
        bars = [(item.start - start, item.end - item.start) for item in spans]
        colours = [_COLOURS[item.stage] for item in spans]
        axis.broken_barh(bars, (row - 0.4, 0.8), facecolors=colours, linewidth=0)
    axis.axvline(predicting_since - start, color="black", linewidth=0.8)
    axis.set_xlim(0, max(1e-3, end - start))
    axis.set_ylim(len(tracks) - 0.5, -0.5)
    axis.set_xlabel(
        "time since the start of the command, s (line: the workers are ready)", fontsize=8
    )
    axis.tick_params(labelsize=8)


def _shares(of: Dict[str, float]) -> Dict[str, float]:
    """In percent, without what nobody could see."""
    total = max(1e-9, sum(of.values()))
    return {stage: 100 * s / total for stage, s in of.items() if s >= 0.0005 * total}


def _draw_shares(axis: Any, shares: Dict[str, float], name: str) -> None:
    rows = range(len(shares))
    axis.barh(rows, list(shares.values()), color=[_COLOURS[stage] for stage in shares])
    for row, share in zip(rows, shares.values()):
        axis.text(share, row, f" {share:.1f}", fontsize=8, va="center")
    axis.set_yticks(rows)
    axis.set_yticklabels(list(shares), fontsize=8)
    axis.set_xlim(0, 110)
    axis.invert_yaxis()
    axis.set_xlabel(f"{name}: share of the time, %", fontsize=8)
    axis.tick_params(labelsize=8)
