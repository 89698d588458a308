"""Turns the rows of a run into a page: tables, ratios, the machine."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from benchmarks.contestants import CONTESTANTS
from benchmarks.workloads import ROOT

FOLDER = ROOT / "docs" / "benchmarks"
PACKAGES = ("allennlp", "torch", "transformers", "numpy", "joblib", "pebble", "mpire", "ray")
TITLES = {contestant.name: contestant.title for contestant in CONTESTANTS}

Row = Dict[str, Any]

_HEADER = """# Benchmarks

Written by `make benchmark`; do not edit. {machine}

Every contestant writes the predictions for the same file. The figures are medians over rounds in
which all contestants take turns (`n`), with the smallest and the largest in brackets.

* *first*: seconds from the start of the command to the end of its first batch;
* *whole*: seconds from the start of the command to its end;
* *lines/s*: steady throughput, of each worker from the end of its first batch to the end of the
  run, so without start-up; *x*: times `allennlp predict` with batch size 32 in the same round;
* *CPU*: of all processes in the whole run, milliseconds a line;
* *memory*: the peak of the proportional set sizes of all processes (shared pages count once);
* *bytes*: whether the output is that of `allennlp predict` with one thread and the same batch size.

"""


class Figures:
    """The measurements of one contestant on one workload."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = [row for row in rows if row["outcome"] == "ok"]
        self.problem = next((row for row in rows if row["outcome"] != "ok"), None)

    def values(self, key: str) -> List[float]:
        return [row[key] for row in self.rows if row[key] is not None]

    def median(self, key: str) -> Optional[float]:
        values = self.values(key)
        return median(values) if values else None

    def ratios(self, other: "Figures", key: str = "steady", other_key: str = "") -> List[float]:
        """The ratios to another contestant's in the same rounds."""
        others = {row["round"]: row[other_key or key] for row in other.rows}
        return [
            row[key] / others[row["round"]]
            for row in self.rows
            if row[key] and others.get(row["round"])
        ]


class Results:
    """All rows of a run, by workload and contestant."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._rows = rows
        self.workloads = {row["workload"]: row for row in rows}

    def figures(self, workload: str, contestant: str) -> Figures:
        key = (workload, contestant)
        return Figures([r for r in self._rows if (r["workload"], r["contestant"]) == key])

    def contestants(self, workload: str) -> List[str]:
        seen = {row["contestant"] for row in self._rows if row["workload"] == workload}
        return [name for name in TITLES if name in seen]


def write(rows: Sequence[Row], folder: Path) -> None:
    """Writes the page and the rows themselves into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    results = Results(rows)
    sections = [_HEADER.format(machine=machine())]
    sections += [_table(results, workload) for workload in results.workloads]
    sections += [_other_pages(folder)]
    (folder / "README.md").write_text("\n".join(sections))
    (folder / "results.json").write_text(json.dumps(list(rows), indent=1) + "\n")


def heading(documentation: Optional[str]) -> str:
    """How the page of a smaller benchmark begins, from the documentation of its script."""
    title, *text = (documentation or "").strip().split("\n\n")
    return "\n\n".join([f"# {title}", *text, machine()]) + "\n"


def machine() -> str:
    """The machine and the versions, in a sentence or two."""
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    kernel = ".".join(platform.release().split(".")[:2])
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            pass
    path = os.environ.get("MKL_DEBUG_CPU_TYPE")
    return (
        f"Machine: {model}, {len(os.sched_getaffinity(0))} CPUs, {memory:.0f} GB of memory, "
        f"{platform.system()} {kernel}. "
        f"Python {platform.python_version()}, {', '.join(versions)}."
        + (f" With MKL_DEBUG_CPU_TYPE={path}." if path else "")
    )


def _table(results: Results, workload: str) -> str:
    row = results.workloads[workload]
    lines = [f"## {row['title'][:1].upper() + row['title'][1:]}", ""]
    lines += [f"{row['lines']:,} lines, {row['workers']} workers.", ""]
    lines += ["| | first s | whole s | lines/s | x | CPU ms/line | memory MB | bytes | n |"]
    lines += ["|---|--:|--:|--:|--:|--:|--:|---|--:|"]
    lines += [_table_row(results, workload, name) for name in results.contestants(workload)]
    notes = [
        f"{TITLES[name]}: {figures.problem['outcome']} ({figures.problem['note']})"
        for name in results.contestants(workload)
        for figures in [results.figures(workload, name)]
        if figures.problem
    ]
    return "\n".join(lines + [""] + [f"* {note}" for note in notes] + [""])


def _table_row(results: Results, workload: str, name: str) -> str:
    figures = results.figures(workload, name)
    title = f"**{TITLES[name]}**" if name.startswith("ours") else TITLES[name]
    if not figures.rows:
        outcome = figures.problem["outcome"] if figures.problem else ""
        return f"| {title} | {outcome} | | | | | | | |"
    cpu = median(1e3 * row["cpu_seconds"] / row["lines"] for row in figures.rows)
    is_same = all(row["identical"] for row in figures.rows)
    cells = [
        title,
        _number(figures.median("first"), ".1f"),
        _number(figures.median("seconds"), ".1f"),
        _with_spread(figures.values("steady"), ".0f" if _is_fast(figures) else ".1f"),
        _number(_median(figures.ratios(results.figures(workload, "predict"))), ".2f"),
        _number(cpu, ".1f"),
        _number(figures.median("pss"), ",.0f"),
        "same" if is_same else "other",
        str(len(figures.rows)),
    ]
    return f"| {' | '.join(cells)} |"


def _is_fast(figures: Figures) -> bool:
    return (figures.median("steady") or 0) >= 100


def _other_pages(folder: Path) -> str:
    """What the smaller benchmarks have written (`python benchmarks/NAME.py > NAME.md`)."""
    pages = [path for path in sorted(folder.glob("*.md")) if path.name != "README.md"]
    titles = [path.read_text().split("\n", 1)[0].lstrip("# ") for path in pages]
    lines = [f"* [{title}]({path.name})" for path, title in zip(pages, titles)]
    return "\n".join(["## More", "", *lines]) + "\n" if lines else ""


def _median(values: Sequence[float]) -> Optional[float]:
    return median(values) if values else None


def _number(value: Optional[float], how: str) -> str:
    return "" if value is None else format(value, how)


def _with_spread(values: Sequence[float], how: str) -> str:
    if not values:
        return ""
    if len(values) == 1:
        return format(values[0], how)
    middle, low, high = (format(f(values), how) for f in _SPREAD)
    return f"{middle} [{low}, {high}]"


_SPREAD: Tuple[Callable[[Sequence[float]], float], ...] = (median, min, max)
