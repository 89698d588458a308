"""
A fault at every write, fsync, rename, unlink and truncate of a run, and every state that a crash
can leave the disk in: `--resume` gives the bytes of a run without one.

The runs are the command's own code with an executor that needs no model, in a process that gets
real signals; `tests/contract/interrupts_test.py` has the same with real workers.
"""

import itertools
import shutil

import pytest

from allennlp_parallel_predict.common.errors import ParallelPredictError
from allennlp_parallel_predict.pipeline.signals import Interrupted
from tests.support.small_runs import KINDS, FaultyOS, Killed, Place, QuickOS

pytestmark = pytest.mark.timeout(280)
NUMBERS = range(12)


def run_with_fault(place, system, **flags):
    """Returns whether the run came to its end all the same."""
    try:
        place.run(system, **flags)
    except (Killed, Interrupted, OSError):
        return False
    return True


def renewed(folder, batching="in_order", numbers=NUMBERS):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return Place(folder, numbers, batching)


@pytest.mark.parametrize("batching", ["in_order", "bucket", "max_tokens"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_every_call(tmp_path, kind, batching, record_property):
    faults = 0
    for at in itertools.count():
        place = renewed(tmp_path / "run", batching)
        system = FaultyOS(at, kind)
        run_with_fault(place, system)
        if not system.injected:
            break
        faults += 1
        place.run(resume=True)
        place.check()
    print(f"{faults} faults of the kind {kind!r} ({batching}): 0 lines lost")
    assert faults > 40


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_fault_while_it_is_resumed(tmp_path, kind):
    faults = 0
    for first, second in itertools.product(range(6, 60, 18), range(0, 60, 3)):
        place = renewed(tmp_path / "run")
        run_with_fault(place, FaultyOS(first, "kill in the middle"))
        system = FaultyOS(second, kind)
        run_with_fault(place, system, resume=True)
        faults += 1 + system.injected
        place.run(resume=True)
        place.check()
    print(f"{faults} faults, two in each run ({kind!r}): 0 lines lost")
    assert faults > 80


class Disk:
    """What a crash may leave on the disk, of what the log of a run has."""

    def __init__(self, log):
        self.names, self.contents = {}, {}
        """What is certainly there: names of files, by number."""
        self.pending_names, self.pending = [], {}
        for entry in log:
            self._add(entry)

    def _add(self, entry):
        kind = entry[0]
        if kind in ("create", "rename", "unlink"):
            self.pending_names.append(entry)
        elif kind == "sync folder":
            self.names, self.pending_names = named(self.names, self.pending_names), []
        elif kind == "sync":
            file = entry[1]
            changes = self.pending.pop(file, [])
            self.contents[file] = changed(self.contents.get(file, b""), changes)
        else:
            self.pending.setdefault(entry[1], []).append(entry)

    def states(self):
        """Yields contents by name: each combination of what may have reached the disk."""
        files = sorted(self.pending)
        for changes in subsets(self.pending_names):
            names = named(self.names, changes)
            for chosen in itertools.product(*(variants(self.pending[file]) for file in files)):
                contents = dict(self.contents)
                for file, some in zip(files, chosen):
                    contents[file] = changed(contents.get(file, b""), some)
                yield {name: contents.get(file, b"") for name, file in names.items()}


def named(names, changes):
    names = dict(names)
    for kind, *args in changes:
        if kind == "create":
            names[args[1]] = args[0]
        elif kind == "unlink":
            names.pop(args[0], None)
        elif args[0] in names:
            names[args[1]] = names.pop(args[0])
    return names


def changed(content, changes):
    for kind, _, place, *data in changes:
        if kind == "truncate":
            content = content[:place].ljust(place, b"\0")
        else:
            content = content.ljust(place, b"\0")
            content = content[:place] + data[0] + content[place + len(data[0]) :]
    return content


def subsets(entries):
    """All of a few; of many: none, all, each beginning, each without one."""
    if len(entries) <= 7:
        for size in range(len(entries) + 1):
            yield from map(list, itertools.combinations(entries, size))
        return
    for n in range(len(entries)):
        yield entries[:n]
        yield entries[:n] + entries[n + 1 :]
    yield entries


def variants(entries):
    """The same, and with the last write torn or its data not there."""
    yield from subsets(entries)
    if entries[-1][0] == "write":
        kind, file, place, data = entries[-1]
        for torn in (data[: len(data) // 2], b"\0" * len(data)):
            yield [*entries[:-1], (kind, file, place, torn)]


@pytest.mark.parametrize("interval", [0.0, 1e9])
@pytest.mark.parametrize("start", ["new", "resumed", "overwritten"])
def test_every_state_of_the_disk(tmp_path, start, interval):
    place = renewed(tmp_path / "recorded", numbers=range(16))
    system = FaultyOS()
    before = {}
    if start != "new":
        run_with_fault(place, FaultyOS(40, "kill in the middle"))
        before = {p.name: p.read_bytes() for p in place.folder.iterdir()}
    flags = {"resume": start == "resumed", "overwrite": start == "overwritten"}
    place.run(system, checkpoint_interval=interval, **flags)
    place.check()
    # Files that were there before have the numbers in which they were opened.
    opened = {n: path for path, n in system._numbers.items() if n < 1000}
    seen, crashes = set(), 0
    for length in range(len(system.log) + 1):
        disk = Disk([])
        for name, content in before.items():
            if name not in ("archive", "input"):
                path = str(place.folder / name)
                number = next((n for n, p in opened.items() if p == path), f"before {name}")
                disk.names[path], disk.contents[number] = number, content
        for entry in system.log[:length]:
            disk._add(entry)
        for state in disk.states():
            crashes += 1
            key = tuple(sorted(state.items()))
            if key not in seen:
                seen.add(key)
                check_state(place.folder, state)
    print(f"{len(seen)} states of the disk, {crashes} crashes, {start}, {interval}: 0 lines lost")
    assert len(seen) > 60


def check_state(folder, state):
    place = renewed(folder, numbers=range(16))
    for path, content in state.items():
        with open(path, "wb") as file:
            file.write(content)
    place.run(QuickOS(), resume=True)
    place.check()


def test_the_invariant_is_checked(tmp_path):
    """Bytes that no position knows of, as when a signal once cut a write from its count."""
    place = renewed(tmp_path / "run")
    system = FaultyOS()
    write, lost = system._do, []

    def lossy(name, function, args):
        is_output = name == "write" and isinstance(args[1], bytearray)
        if is_output and system.calls > 20 and not lost:
            lost.append(bytes(args[1]))
            return len(args[1])
        return write(name, function, args)

    system._do = lossy
    with pytest.raises(ParallelPredictError, match="something else writes"):
        place.run(system)
