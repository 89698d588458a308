"""
A timeline as a picture: a row for each process, and below it the shares of the stages, whose bars
are the legend too.
"""

import html
import io
from typing import Any, Dict, Iterable, List, Sequence

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.extras import import_extra
from allennlp_parallel_predict.common.stages import (
    PARENT_STAGES,
    WAITING,
    WAITING_FOR_WORKERS,
    WORKER_STAGES,
)
from allennlp_parallel_predict.common.stopwatch import coarsen
from allennlp_parallel_predict.profiling.recorder import RunProfile, Timeline
from allennlp_parallel_predict.profiling.render import render, run_of
from allennlp_parallel_predict.profiling.report import Report

_FORMATS = (".png", ".svg", ".html")
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
    import_extra("matplotlib", "plot", "--profile-plot")


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
    rate = f"{report['lines']:,} lines at {report['lines_per_second']:,.1f} lines/s"
    figure.suptitle(f"{rate}: {run_of(report)}", fontsize=11)
    grid = figure.add_gridspec(2, 2, height_ratios=heights)
    timeline = figure.add_subplot(grid[0, :])
    _draw_timeline(timeline, [profile.parent, *workers], profile.predicted()[0])
    labels = [f"{worker['name']}, {worker['utilisation']:.0%} busy" for worker in report["workers"]]
    timeline.set_yticks(range(1 + len(workers)))
    timeline.set_yticklabels(["parent", *labels], fontsize=8)
    left = figure.add_subplot(grid[1, 0])
    right = figure.add_subplot(grid[1, 1], sharex=left)  # one scale, so that bars can be compared
    _draw_shares(left, shares[0], "workers, all together")
    _draw_shares(right, shares[1], "parent")
    return figure


def _colours(stages: Iterable[str]) -> List[Any]:
    """Of a process's stages: the parent's and the workers' do not meet in one list."""
    from matplotlib import colormaps

    known: Dict[str, Any] = {}
    for order in (PARENT_STAGES, WORKER_STAGES):
        known.update(zip(order, map(colormaps["tab20"], range(len(order)))))
    known.update(dict.fromkeys([WAITING, WAITING_FOR_WORKERS], "#e4e4e4"))
    return [known[stage] for stage in stages]


def _draw_timeline(axis: Any, tracks: Sequence[Timeline], predicting_since: float) -> None:
    start, end = tracks[0].start, max(track.end for track in tracks)
    for row, track in enumerate(tracks):
        spans = coarsen(track.spans, (end - start) / _COLUMNS)
        bars = [(item.start - start, item.end - item.start) for item in spans]
        colours = _colours(item.stage for item in spans)
        axis.broken_barh(bars, (row - 0.4, 0.8), facecolors=colours, linewidth=0)
    axis.axvline(predicting_since - start, color="black", linewidth=0.8)
    axis.set_xlim(0, max(1e-3, end - start))
    axis.set_ylim(len(tracks) - 0.5, -0.5)
    label = "time since the start of the command, s (line: the workers are ready)"
    axis.set_xlabel(label, fontsize=8)
    axis.tick_params(labelsize=8)


def _shares(of: Dict[str, float]) -> Dict[str, float]:
    """In percent, without what nobody could see."""
    total = max(1e-9, sum(of.values()))
    return {stage: 100 * s / total for stage, s in of.items() if s >= 0.0005 * total}


def _draw_shares(axis: Any, shares: Dict[str, float], name: str) -> None:
    rows = range(len(shares))
    axis.barh(rows, list(shares.values()), color=_colours(shares))
    for row, share in zip(rows, shares.values()):
        axis.text(share, row, f" {share:.1f}", fontsize=8, va="center")
    axis.set_yticks(rows)
    axis.set_yticklabels(list(shares), fontsize=8)
    axis.set_xlim(0, 110)
    axis.invert_yaxis()
    axis.set_xlabel(f"{name}: share of the time, %", fontsize=8)
    axis.tick_params(labelsize=8)
