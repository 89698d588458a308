"""
Measures ways to predict a file and writes what comes out to `docs/benchmarks/`.

    python benchmarks/run.py            everything, in 20 minutes on two cores
    python benchmarks/run.py --quick    less of it, in 3 minutes

The contestants take turns, round after round until the time is up, so that whatever else the
machine does is spread over all of them. Each result is kept as soon as it is there: a run that was
broken off, or whose time was up, goes on where it was; `--fresh` begins anew.
"""

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple

if __name__ == "__main__":
    # The repository instead of this folder, whose names AllenNLP's search for plugins would find.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import measure, report, workloads  # noqa: E402
from benchmarks.contestants import CONTESTANTS, REFERENCE, REFERENCE_OF_1, Contestant  # noqa: E402
from benchmarks.workloads import CACHE, Workload  # noqa: E402

WORKERS = 2
LINES = {"minilm": 768, "g2p-large": 2048, "g2p": 1344, "tagger": 4096}
"""How many inputs are enough for a steady state of some seconds; multiples of 64 make the shards'
batches those of the whole file."""
QUICK_LINES = {"minilm": 128, "g2p": 704}
LEFT_OUT = {
    # Its large sister has them all.
    "g2p": ("torch", "futures", "joblib", "pebble", "mpire", "ray"),
    # What they show does not depend on the size of the archive.
    "tagger": (REFERENCE_OF_1, "predict-1", "ours-1", "asyncio"),
}
LEAST_LIMIT = 40.0

Step = Tuple[Workload, Contestant, int]
"""A workload, a contestant, and the number of the round."""


class Plan(NamedTuple):
    """What is measured, and for how long."""

    name: str
    minutes: float
    lines: Dict[str, int]
    contestants: List[Contestant]
    rounds: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="3 minutes instead of 20")
    parser.add_argument("--minutes", type=float, help="the time after which nothing new begins")
    parser.add_argument("--workloads", nargs="+", choices=workloads.NAMES)
    parser.add_argument("--contestants", nargs="+", choices=[c.name for c in CONTESTANTS])
    parser.add_argument("--lines", type=int, help="inputs of each workload")
    parser.add_argument("--rounds", type=int, help="at most so many")
    parser.add_argument("--fresh", action="store_true", help="forget a run that was broken off")
    parser.add_argument("--report", action="store_true", help="only write the report again")
    parser.add_argument("--output", type=Path, help="instead of docs/benchmarks")
    args = parser.parse_args()
    plan = _plan(args)
    results = Results(plan, args.fresh)
    if not args.report:
        Run(plan, results).go()
    output = args.output or (report.FOLDER if plan.name == "full" else CACHE / plan.name)
    report.write(results.rows, output)
    print((output / "README.md").read_text())


def _plan(args: argparse.Namespace) -> Plan:
    lines = dict(QUICK_LINES if args.quick else LINES)
    if args.workloads:
        lines = {name: lines.get(name, LINES[name]) for name in args.workloads}
    if args.lines:
        lines = {name: args.lines for name in lines}
    names = args.contestants
    contestants = [c for c in CONTESTANTS if names is None or c.name in [REFERENCE, *names]]
    is_changed = args.workloads or args.contestants or args.lines
    name = "quick" if args.quick else "full"
    name += "-changed" if is_changed else ""
    minutes = args.minutes or (2.5 if args.quick else 20)
    return Plan(name, minutes, lines, contestants, args.rounds or (1 if args.quick else 99))


class Results:
    """The measurements of a plan, in a file to which each is added at once."""

    def __init__(self, plan: Plan, fresh: bool) -> None:
        self._path = CACHE / f"results-{plan.name}.jsonl"
        CACHE.mkdir(parents=True, exist_ok=True)
        if fresh and self._path.exists():
            self._path.unlink()
        self.rows: List[Dict[str, Any]] = []
        if self._path.exists():
            self.rows = [json.loads(line) for line in open(self._path)]

    def add(self, row: Dict[str, Any]) -> None:
        self.rows.append(row)
        with open(self._path, "a") as file:
            file.write(json.dumps(row) + "\n")

    def find(self, workload: str, contestant: str, round_number: int) -> Optional[Dict[str, Any]]:
        key = (workload, contestant, round_number)
        rows = (r for r in self.rows if (r["workload"], r["contestant"], r["round"]) == key)
        return next(rows, None)


class Run:
    """Carries out a plan."""

    def __init__(self, plan: Plan, results: Results) -> None:
        self._plan = plan
        self._results = results
        self._deadline = time.monotonic() + 60 * plan.minutes
        self._workloads = workloads.prepare(list(plan.lines))

    def go(self) -> None:
        """Measures until the time is up, or all there is to measure is measured."""
        missing = [c.name for c in self._plan.contestants if not c.is_available()]
        if missing:
            print(f"not installed, and left out: {', '.join(missing)}", file=sys.stderr)
        for workload, contestant, round_number in self._order():
            if time.monotonic() > self._deadline:
                return
            if not self._results.find(workload.name, contestant.name, round_number):
                self._measure(workload, contestant, round_number)

    def _order(self) -> Iterator[Step]:
        """The main contestants in every round, the others in the first."""
        for number in range(self._plan.rounds):
            for workload in self._workloads:
                chosen = [
                    contestant
                    for contestant in self._plan.contestants
                    if contestant.is_available()
                    and (contestant.is_main or not number)
                    and contestant.name not in LEFT_OUT.get(workload.name, ())
                    and not (number and contestant.name in (REFERENCE, REFERENCE_OF_1))
                ]
                # So that nobody always comes after the same.
                turn = number % max(1, len(chosen))
                chosen = chosen[turn:] + chosen[:turn]
                yield from ((workload, contestant, number) for contestant in chosen)

    def _measure(self, workload: Workload, contestant: Contestant, round_number: int) -> None:
        lines = self._plan.lines[workload.name]
        inputs = workload.head(lines)
        output = CACHE / "output.jsonl"
        output.unlink() if output.exists() else None
        command = contestant.command(workload.archive, workload.predictor, inputs, output, WORKERS)
        limit = self._limit(workload, contestant)
        measured = measure.run(command, output, limit, contestant.environment)
        row = {
            "workload": workload.name,
            "title": workload.title,
            "contestant": contestant.name,
            "round": round_number,
            "lines": lines,
            "workers": WORKERS,
            **measured._asdict(),
            "output": hashlib.sha256(measured.output).hexdigest(),
            "identical": self._is_identical(workload, contestant, measured.output),
        }
        self._results.add(row)
        _tell(row)

    def _limit(self, workload: Workload, contestant: Contestant) -> float:
        """Seconds that a contestant may take, by what `predict` took."""
        reference = self._results.find(workload.name, REFERENCE, 0)
        if reference is None:
            return 600.0
        return max(LEAST_LIMIT, reference["seconds"] * (2 if contestant.may_hang else 6))

    def _is_identical(self, workload: Workload, contestant: Contestant, output: bytes) -> bool:
        """Whether the output is that of `predict` with the same batch size and one thread."""
        lines, size = self._plan.lines[workload.name], contestant.batch_size
        plan = self._plan.name
        reference = CACHE / f"reference.{plan}.{workload.name}.{lines}.{size}.jsonl"
        if contestant.name in (REFERENCE, REFERENCE_OF_1):
            reference.write_bytes(output)
        return reference.exists() and reference.read_bytes() == output


def _tell(row: Dict[str, Any]) -> None:
    steady = f"{row['steady']:8.1f} lines/s" if row["steady"] else " " * 16
    same = "same bytes" if row["identical"] else "other bytes"
    print(
        f"{row['round']:2} {row['workload']:10}{row['contestant']:18}{row['seconds']:7.1f} s"
        f"{steady}{row['pss']:7.0f} MB  {row['outcome']} {same} {row['note']}",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    main()
