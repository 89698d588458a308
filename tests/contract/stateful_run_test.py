"""
Runs in any order of faults, signals, refusals and resumptions, held against a model of what the
files have to hold after each. `PROPERTY_EXAMPLES=2000` tries more of them.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from allennlp_parallel_predict.common.errors import ResumeError, SettingsError, WorkerDied
from allennlp_parallel_predict.pipeline.signals import Interrupted
from tests.support.small_runs import (
    KINDS,
    EchoExecutor,
    FaultyOS,
    Killed,
    Place,
    QuickOS,
    is_bad,
)

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "60"))
STEPS = 15

HOW = st.sampled_from(["plain", "resume", "resume", "overwrite"])
INTERVALS = st.sampled_from([0.0, 1e9])


def interrupt(number):
    os.kill(os.getpid(), signal.SIGTERM)


def die(number):
    raise WorkerDied("a worker died")


class Runs(RuleBasedStateMachine):
    """
    The model: the number of inputs that are certainly on the disk, which only ever rises, and
    whether the run is complete. Where the real thing is may be found in its files alone.
    """

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.certain = 0
        self.has_ended = False

    @initialize(
        count=st.sampled_from([0, 1, 7, 12, 16, 20]),
        first=st.integers(0, 4),
        shape=st.sampled_from(
            [
                ("in_order", "skip"),
                ("in_order", "placeholder"),
                ("in_order", "raise"),
                ("bucket", "skip"),
                ("bucket", "placeholder"),
            ]
        ),
    )
    def begin(self, count, first, shape):
        self.place = Place(self.folder, range(first, first + count), *shape)
        bad = [i for i, n in enumerate(self.place.numbers) if is_bad(n)]
        self.ends_at = bad[0] if bad and shape[1] == "raise" else None
        """The input that ends each run, if it is not interrupted before."""

    # What a user can do.

    @rule(how=HOW, interval=INTERVALS, at=st.sampled_from(range(90)), kind=st.sampled_from(KINDS))
    def run_with_a_fault(self, how, interval, at, kind):
        self.run(how, FaultyOS(at, kind), checkpoint_interval=interval)

    @rule(
        how=HOW,
        interval=INTERVALS,
        at=st.sampled_from(range(10)),
        event=st.sampled_from([interrupt, die]),
    )
    def run_with_an_end_between_two_batches(self, how, interval, at, event):
        executor = EchoExecutor(lambda number: event(number) if number == at else None)
        self.run(how, QuickOS(), checkpoint_interval=interval, executor=executor)

    @precondition(lambda self: self.place.checkpoint.exists())
    @rule(how=st.sampled_from(["plain", "resume"]))
    def run_calmly(self, how):
        self.run(how, QuickOS())

    # What else can happen to the files between two runs.

    @precondition(lambda self: self.place.checkpoint.exists())
    @rule(data=st.binary(max_size=60), name=st.sampled_from(["output", "errors"]))
    def bytes_that_a_crash_left(self, data, name):
        with contextlib.suppress(FileNotFoundError), open(self.folder / name, "r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(data)

    @rule(data=st.sampled_from([b"", b"{"]))
    def a_checkpoint_that_was_not_finished(self, data):
        (self.folder / "output.checkpoint.tmp").write_bytes(data)

    @precondition(lambda self: self.place.checkpoint.exists())
    @rule()
    def the_input_is_copied(self):
        path = self.folder / "input"
        moment = path.stat().st_mtime - 1000
        os.utime(path, (moment, moment))

    @precondition(lambda self: not self.has_ended)
    @rule(how=HOW)
    def a_run_without_its_input(self, how):
        """As `predict`, it leaves an output, but that is not complete."""
        path, before = self.folder / "input", self.files()
        path.rename(self.folder / "aside")
        with pytest.raises(FileNotFoundError):
            self.place.run(QuickOS(), **flags(how))
        (self.folder / "aside").rename(path)
        assert self.files() in (before, {**before, "output": b""})

    # What has to be refused.

    @precondition(lambda self: self.written()["output_bytes"])
    @rule(place=st.sampled_from([0.0, 0.3, 0.99]))
    def the_output_is_changed(self, place):
        before = self.place.output.read_bytes()
        at = int(place * self.written()["output_bytes"])
        self.place.output.write_bytes(before[:at] + bytes([before[at] ^ 1]) + before[at + 1 :])
        self.is_refused(ResumeError, "has changed since", resume=True)
        self.place.output.write_bytes(before)

    @precondition(lambda self: self.place.checkpoint.exists())
    @rule(place=st.sampled_from([0.0, 0.3, 0.6, 0.99]), bit=st.integers(0, 7))
    def the_checkpoint_is_damaged(self, place, bit):
        before = self.place.checkpoint.read_bytes()
        damaged = bytearray(before)
        damaged[int(place * len(before))] ^= 1 << bit
        self.place.checkpoint.write_bytes(bytes(damaged))
        self.is_refused(ResumeError, "", resume=True)
        self.place.checkpoint.write_bytes(before)

    @precondition(lambda self: self.place.checkpoint.exists() and self.place.numbers)
    @rule()
    def another_input(self):
        path = self.folder / "input"
        before = path.read_text()
        path.write_text(before.replace(str(self.place.numbers[0]), "7" * 2, 1))
        if path.read_text() != before:
            self.is_refused(ResumeError, "belongs to a run with another", resume=True)
        path.write_text(before)

    @precondition(lambda self: self.place.checkpoint.exists() and self.place.output.exists())
    @rule(how=HOW)
    def another_run_has_the_output(self, how):
        with locked(self.place.output):
            self.is_refused(SettingsError, "is being written by another run", **flags(how))

    # The model.

    def run(self, how, system, **more):
        has_ended_before = self.has_ended
        if how == "plain" and self.is_protected():
            self.is_refused(SettingsError, "--resume to go on", **more)
            return
        if how != "resume":
            self.certain, self.has_ended = 0, False
        before = self.files()
        try:
            with contextlib.redirect_stderr(io.StringIO()):
                self.place.run(system, **flags(how), **more)
        except (Killed, Interrupted, OSError, WorkerDied):
            pass
        except ValueError as error:
            assert self.ends_at is not None and "no" in str(error), error
            assert self.place.output.read_bytes() == self.place.expected(self.ends_at)
        else:
            assert self.ends_at is None
            self.has_ended = True
            self.place.check()
        # The empty output of an empty input may be resumed, and that be interrupted.
        is_complete = has_ended_before and before["output.checkpoint"] is None
        if how == "resume" and is_complete and before["output"]:
            assert self.files() == before

    def is_refused(self, error, message, **more):
        before = self.files()
        with pytest.raises(error, match=message):
            self.place.run(QuickOS(), **more)
        assert self.files() == before

    def is_protected(self):
        """Whether something would be lost by starting from the beginning."""
        is_empty = not self.place.output.exists() or not self.place.output.stat().st_size
        return self.place.checkpoint.exists() and (not is_empty or self.written()["failures"] > 0)

    def files(self):
        names = ("output", "errors", "output.checkpoint")
        paths = [self.folder / name for name in names]
        return {path.name: path.read_bytes() if path.exists() else None for path in paths}

    def written(self):
        if not self.place.checkpoint.exists():
            return {"output_bytes": 0, "failures": 0}
        return json.loads(self.place.checkpoint.read_text())["content"]["written"]

    @invariant()
    def what_the_checkpoint_names_is_there(self):
        """Positions and bytes agree, and nothing that was certain is lost."""
        if not self.place.checkpoint.exists():
            return
        written = self.written()
        count = written["positions"]
        output, errors = self.place.expected(count), self.place.expected_errors(count)
        assert (len(output), len(errors)) == (written["output_bytes"], written["errors_bytes"])
        if count:
            assert self.place.output.read_bytes()[: len(output)] == output
            assert self.place.errors.read_bytes()[: len(errors)] == errors
        assert count >= self.certain
        self.certain = count

    def teardown(self):
        """However many runs were interrupted: one that is not ends it."""
        try:
            for run in range(2):
                self.run("resume", QuickOS())
            assert self.has_ended or self.ends_at is not None
        finally:
            shutil.rmtree(self.folder)


def flags(how):
    return {} if how == "plain" else {how: True}


@contextlib.contextmanager
def locked(path):
    """Another process has the file."""
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        from allennlp_parallel_predict.data.files import OutputFile

        output = OutputFile(str(path))
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(output.size)
    try:
        assert os.read(ready[0], 1)
        yield
    finally:
        os.write(done[1], b"x")
        os.waitpid(pid, 0)
        for end in (*ready, *done):
            os.close(end)


Runs.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class TestRuns(Runs.TestCase):  # type: ignore[name-defined,misc]
    pytestmark = pytest.mark.timeout(280 + EXAMPLES)
