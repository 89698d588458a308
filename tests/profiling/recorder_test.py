"""Stages that add up, hooks that leave no trace, and what becomes of a profile."""

import builtins
import json
import subprocess
import sys
import threading
import time
from collections import defaultdict

import pytest
from allennlp.data import Batch
from allennlp.nn import util
from allennlp.predictors import predictor as predictor_module

from allennlp_parallel_predict.common import stages
from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.stopwatch import Span, Stopwatch, coarsen
from allennlp_parallel_predict.executors import InProcessExecutor
from allennlp_parallel_predict.profiling.compare import compare, read_report
from allennlp_parallel_predict.profiling.plot import check_plot, plot
from allennlp_parallel_predict.profiling.recorder import RunProfile, Timeline
from allennlp_parallel_predict.profiling.render import render
from allennlp_parallel_predict.profiling.trace import chrome_trace
from tests.fixtures.timed_predictors import OverridingPredictor, TimedPredictor, TimedReader
from tests.support.profiles import profiled

pytestmark = pytest.mark.timeout(90)

STEPS = {
    "load": stages.LOAD_LINE,
    "instance": stages.TO_INSTANCE,
    "index": stages.INDEXING,
    "forward": stages.FORWARD,
    "readable": stages.READABLE,
    "dump": stages.DUMP_LINE,
}


class TestStopwatch:
    def test_each_moment_belongs_to_one_stage(self):
        watch = Stopwatch("base")
        before = time.monotonic()
        with watch.stage("outer"):
            time.sleep(0.02)
            watch.timed("inner", time.sleep)(0.03)
        with pytest.raises(ZeroDivisionError), watch.stage("failing"):
            1 / 0
        seconds, _, now = watch.take()
        assert set(seconds) == {"base", "outer", "inner", "failing"}
        assert seconds["inner"] >= 0.03 and seconds["outer"] >= 0.02
        assert sum(seconds.values()) == pytest.approx(now - before, abs=1e-3)
        assert set(watch.take()[0]) == {"base"}

    def test_other_threads_are_not_seen(self):
        watch = Stopwatch("base")
        thread = threading.Thread(target=watch.timed("inner", time.sleep), args=(0.01,))
        thread.start()
        thread.join()
        assert set(watch.take()[0]) == {"base"}

    def test_calls_in_a_row_are_one_slice(self):
        watch = Stopwatch(stages.OTHER, keeps_spans=True)
        call = watch.timed("parsing", lambda: None)
        for _ in range(50):
            call()
        time.sleep(0.001)
        _, spans, _ = watch.take()
        assert len([item for item in spans if item.stage == "parsing"]) < 10

    def test_coarser_spans_cover_the_same_time(self):
        fine = [Span("ab"[n % 2], n, n + (1 if n % 2 else 0.5)) for n in range(1000)]
        coarse = coarsen(fine, 10)
        assert 90 < len(coarse) < 120
        assert (coarse[0].start, coarse[-1].end) == (0, 1000)
        assert {item.stage for item in coarse} == {"b"}

    def test_a_track_stays_small(self):
        track = Timeline(1, 0.0)
        for n in range(300):
            track.batches.append(Span(f"batch {n}", n, n + 1))
            track.charge({}, [Span("a", n + k / 100, n + (k + 1) / 100) for k in range(100)], n + 1)
        assert len(track.spans) <= 20_000
        assert track.spans[-1].end == 300
        assert track.batches == []  # merged spans may reach over their ends


class TestStages:
    @pytest.mark.parametrize("step", STEPS)
    def test_each_step_has_its_name(self, tmp_path, step):
        ran = profiled([{step: 0.02}] * 4, tmp_path, num_workers=1)
        found = ran.report["stages"]
        steps = 1 if step == "readable" else 4
        assert found[STEPS[step]] >= 0.02 * steps
        others = sum(found[name] for name in STEPS.values() if name != STEPS[step])
        assert others < found[STEPS[step]]

    def test_a_predictor_that_overrides_predict_json(self, tmp_path):
        for batch_size in (1, 4):
            inputs = [{"own": 0.01, "instance": 0.01, "forward": 0.01}] * 4
            predictor = OverridingPredictor()
            ran = profiled(inputs, tmp_path, batch_size, predictor, num_workers=1)
            for stage in (stages.PREDICTOR, stages.TO_INSTANCE, stages.FORWARD):
                assert ran.report["stages"][stage] >= 0.04, (batch_size, stage)

    @pytest.mark.parametrize("workers", [0, 1, 2])
    def test_they_add_up_in_each_process(self, tmp_path, workers):
        executor = None if workers else InProcessExecutor()
        ran = profiled([{"forward": 0.01}] * 20, tmp_path, executor=executor, num_workers=workers)
        report = ran.report
        for process in [report["parent"], *report["workers"]]:
            assert sum(process["stages"].values()) == pytest.approx(process["seconds"], abs=1e-6)
        assert report["seconds"]["wall"] == report["parent"]["seconds"]
        assert len(report["workers"]) == max(1, workers)
        assert sum(worker["lines"] for worker in report["workers"]) == report["lines"] == 20

    def test_a_worker_that_died_and_its_successor(self, tmp_path, monkeypatch):
        import os

        dump_line, flag = TimedPredictor.dump_line, tmp_path / "died"

        def die_once(self, outputs):
            if outputs["inputs"].get("dies") and not flag.exists():
                flag.write_text("")
                os._exit(1)
            return dump_line(self, outputs)

        monkeypatch.setattr(TimedPredictor, "dump_line", die_once)
        inputs = [{"forward": 0.005, "dies": n == 30} for n in range(60)]
        ran = profiled(inputs, tmp_path, num_workers=1)
        assert ran.report["restarts"] == 1 and len(ran.report["workers"]) == 2
        assert ran.report["lines"] == 60


class TestHooks:
    OWNERS = [Batch, util, predictor_module, TimedReader]

    def test_nothing_is_left(self, tmp_path):
        predictor = TimedPredictor()
        executor = InProcessExecutor()
        objects = [predictor, predictor._model, predictor._dataset_reader, executor, *self.OWNERS]
        before = [dict(vars(owner)) for owner in objects]
        profiled([{"forward": 0.001}] * 8, tmp_path, predictor=predictor, executor=executor)
        for owner, attributes in zip(objects, before):
            after = dict(vars(owner))
            if owner is executor:  # its own state, but none of our functions
                after = {name: after[name] for name in after if callable(after[name])}
                attributes = {name: attributes[name] for name in after}
            assert after == attributes, owner

    @pytest.mark.parametrize("kind", [staticmethod, classmethod])
    def test_a_reader_with_a_method_of_the_class(self, tmp_path, kind, monkeypatch):
        method = TimedReader.text_to_instance

        def text_to_instance(*args):
            (inputs,) = args if kind is staticmethod else args[1:]
            return method(None, inputs)

        monkeypatch.setattr(TimedReader, "text_to_instance", kind(text_to_instance))
        predictor = OverridingPredictor()
        ran = profiled([{"instance": 0.02}] * 4, tmp_path, predictor=predictor, num_workers=1)
        assert ran.report["stages"]["JSON to instance"] >= 0.08

    def test_nothing_is_left_after_an_error(self, tmp_path):
        before = [dict(vars(owner)) for owner in self.OWNERS]
        with pytest.raises(json.JSONDecodeError):
            profiled(["no JSON"], tmp_path)
        assert [dict(vars(owner)) for owner in self.OWNERS] == before

    def test_the_output_is_the_same_and_without_a_profile_there_is_none(self, tmp_path):
        inputs = [{"length": n % 5 + 1} for n in range(40)]
        plain = profiled(inputs, tmp_path, is_profiled=False)
        assert profiled(inputs, tmp_path).output == plain.output
        assert profiled(inputs, tmp_path, executor=InProcessExecutor()).output == plain.output


class TestReport:
    def test_workers_that_are_replaced_are_not_more_workers(self, tmp_path):
        inputs = [{"forward": 0.005}] * 200
        ran = profiled(inputs, tmp_path, max_batches_per_worker=5)
        assert len(ran.report["workers"]) >= 8 and ran.report["num_workers"] == 2
        assert 0.3 < ran.report["utilisation"] <= 1
        assert ran.report["idle_at_the_end"] < ran.report["seconds"]["predicting"]

    def test_workers_that_get_nothing_are_workers(self, tmp_path):
        ran = profiled([{"forward": 0.1}] * 8, tmp_path, num_workers=4)
        assert len(ran.report["workers"]) == 2
        assert ran.report["utilisation"] < 0.6

    @pytest.fixture(scope="class")
    def ran(self, tmp_path_factory):
        inputs = [{"forward": 0.002, "length": n % 5 + 1} for n in range(80)]
        inputs[42]["forward"] = 0.1
        return profiled(inputs, tmp_path_factory.mktemp("report"))

    def test_the_slowest_batch_has_its_lines_and_lengths(self, ran):
        slowest = ran.report["slowest_batches"][0]
        assert slowest["lines"] == "input lines 41-44" and slowest["inputs"] == 4
        assert slowest["tokens"] == {"shortest": 1, "mean": 2.5, "longest": 4}
        assert ran.report["batch_seconds"]["max"] == slowest["seconds"] > 0.1
        assert len(ran.report["slowest_batches"]) == 10

    def test_memory_cpu_and_bytes(self, ran):
        for process in [ran.report["parent"], *ran.report["workers"]]:
            memory = process["memory"]
            assert 0 < memory["uss"] <= memory["pss"] <= memory["rss"]
            assert process["cpu_seconds"] > 0
        assert 0 < ran.report["memory"]["shared"] < 1
        assert ran.report["memory"]["processes"] == 3
        assert ran.report["bytes"]["to_workers"] > 80 * len('{"forward": 0.002, "length": 1}')

    def test_it_is_json_and_a_text(self, ran):
        assert json.loads(json.dumps(ran.report)) == ran.report
        text = render(ran.report)
        for part in ("80 lines", "forward", "worker 1", "input lines 41-44", "Diagnosis"):
            assert part in text
        assert max(map(len, text.splitlines())) <= 110

    def test_the_trace(self, ran):
        trace = json.loads(json.dumps(chrome_trace(ran.profile)))
        names = {
            event["tid"]: event["args"]["name"]
            for event in trace["traceEvents"]
            if event["ph"] == "M" and event["name"] == "thread_name"
        }
        assert names[0] == "parent" and len(names) == 3
        tracks = defaultdict(list)
        for event in trace["traceEvents"]:
            assert event["ph"] in "MX" and isinstance(event["tid"], int)
            if event["ph"] == "X":
                assert event["ts"] >= 0 and event["dur"] >= 0
                tracks[event["tid"]].append(event)
        for events in tracks.values():
            _assert_nested(events)
        batches = [e for events in tracks.values() for e in events if e["cat"] == "batch"]
        assert len(batches) == 20
        assert {"lines": "input lines 41-44"} in [event["args"] for event in batches]
        inside = [e for e in tracks[1] + tracks[2] if e["name"] == stages.FORWARD]
        assert "input lines 41-44" in [event["args"]["lines"] for event in inside]

    @pytest.mark.parametrize("ending", ["png", "svg", "html"])
    def test_the_plot(self, ran, tmp_path, ending):
        pytest.importorskip("matplotlib")
        path = tmp_path / f"profile.{ending}"
        plot(ran.profile, ran.report, str(path))
        begins = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!DOCTYPE html>"}[ending]
        content = path.read_bytes()
        assert content.startswith(begins) and len(content) > 10_000
        if ending == "html":
            assert b"</svg>" in content and b"slowest batches" in content

    def test_the_plot_needs_matplotlib_and_a_known_format(self, monkeypatch):
        with pytest.raises(SettingsError, match=".png, .svg, .html files, not x.gif"):
            check_plot("x.gif")
        imports = builtins.__import__

        def without_matplotlib(name, *args, **kwargs):
            if name.startswith("matplotlib"):
                raise ImportError(name)
            return imports(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without_matplotlib)
        monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
        with pytest.raises(SettingsError, match=r"pip install .*\[plot\]"):
            check_plot("x.png")

    def test_two_side_by_side(self, ran, tmp_path):
        executor = InProcessExecutor()
        single = profiled([{"forward": 0.002}] * 80, tmp_path, executor=executor)
        text = compare(single.report, ran.report, "one.json", "pool.json")
        assert "one.json: 80 lines, in this process" in text
        forward = next(line for line in text.splitlines() if line.strip().startswith("forward"))
        a, b, ratio = map(float, forward.split()[1:])
        assert ratio == pytest.approx(b / a, abs=0.1)
        (tmp_path / "no.json").write_text("{}")
        with pytest.raises(SettingsError, match="no.json is not what --profile"):
            read_report(str(tmp_path / "no.json"))

    def test_a_run_without_input(self, tmp_path):
        report = profiled([], tmp_path).report
        assert report["lines"] == 0 and report["workers"] == []
        assert "0 lines" in render(report)


def _assert_nested(events):
    """Slices of one track lie beside or inside each other."""
    ends = []
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        while ends and ends[-1] <= event["ts"] + 0.01:
            ends.pop()
        end = event["ts"] + event["dur"]
        assert not ends or end <= ends[-1] + 0.01
        ends.append(end)


class TestCommand:
    def test_a_real_archive(self, archives, parallel_predict, tmp_path):
        archive_file = archives("tagger")
        lines = [{"sentence": "The dog ran . " * (n % 4 + 1)} for n in range(30)]
        (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        flags = ["--predictor", "sentence_tagger", "--batch-size", "4", "--silent"]
        flags += ["--predictor-args", json.dumps({"language": str(_spacy(archive_file))})]
        flags += ["--num-workers", "2", "--output-file", "out.jsonl"]
        command = ["parallel-predict", archive_file, "in.jsonl", *flags]
        output = tmp_path / "out.jsonl"
        plain = parallel_predict.run(command, output=output, cwd=str(tmp_path))
        assert plain.status == 0 and "Profile" not in plain.stderr
        names = ["--profile", "p.json", "--profile-trace", "t.json", "--profile-plot", "p.svg"]
        ran = parallel_predict.run(command + names, output=output, cwd=str(tmp_path))
        assert (ran.status, ran.output) == (0, plain.output), ran.stderr[-2000:]
        assert "Profile: 30 lines" in ran.stderr and "Diagnosis" in ran.stderr
        report = json.loads((tmp_path / "p.json").read_text())
        assert {stages.EXTRACTING, stages.LOADING} <= set(report["parent"]["stages"])
        assert report["stages"][stages.FORWARD] > 0 and report["padding"]["share"] > 0.2
        assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
        assert (tmp_path / "p.svg").stat().st_size > 10_000
        ran = parallel_predict.run([*command, "--profile"], output=output, cwd=str(tmp_path))
        assert (ran.status, ran.output) == (0, plain.output), ran.stderr[-2000:]
        assert "Profile: 30 lines" in ran.stderr
        # The short form, as the README's `allennlp parallel-compare` is run below.
        compared = [sys.executable, "-m", "allennlp_parallel_predict", "compare"]
        compared += [str(tmp_path / "p.json")] * 2
        text = subprocess.run(compared, stdout=subprocess.PIPE, check=True).stdout.decode()
        assert "forward" in text and "1.00" in text
        same = parallel_predict.run(["parallel-compare", *compared[-2:]])
        assert same.status == 0 and same.stdout.decode() == text

    def test_what_cannot_be_is_said_before_the_run(self, parallel_predict, tmp_path):
        wrong = parallel_predict.run(["parallel-predict", "--profile", "a.tar.gz", "in.jsonl"])
        assert wrong.status == 2 and "'a.tar.gz' is no FILE.json" in wrong.stderr
        command = ["parallel-predict", "a.tar.gz", "in.jsonl"]
        wrong = parallel_predict.run([*command, "--profile", str(tmp_path / "no" / "p.json")])
        assert wrong.status and "there is no folder" in wrong.explanation
        wrong = parallel_predict.run([*command, "--profile-plot", "p.gif"])
        assert wrong.status and "not p.gif" in wrong.message


def _spacy(archive_file):
    from pathlib import Path

    return Path(archive_file).parent / "spacy"


def test_imports_are_counted_once_in_a_process():
    first = RunProfile(from_process_start=True)
    second = RunProfile(from_process_start=True)
    for profile in (second, first):
        profile.finish()
    assert stages.IMPORTS not in second.parent.stages
