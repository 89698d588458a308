"""The Python interface, against AllenNLP's own predictor and with workers that fail."""

import io
import itertools
import pickle
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import torch
from allennlp.common import Params
from allennlp.common.checks import ConfigurationError
from allennlp.predictors import Predictor

from allennlp_parallel_predict import ParallelPredictor
from allennlp_parallel_predict.api.stream import pickled_batches
from allennlp_parallel_predict.common.errors import PredictorClosed, SettingsError, WorkerDied
from allennlp_parallel_predict.common.messages import BatchKind
from allennlp_parallel_predict.common.remote_errors import RemoteTraceback
from allennlp_parallel_predict.data.batching import BucketBatching
from tests.support.faults import numbered, predictor_of
from tests.support.pools import ARCHIVE, WORDS, faulty, numbers, settings_of
from tests.support.running import workers

pytestmark = pytest.mark.timeout(90)


class Unloadable:
    """Raises what no `except Exception` catches when it is unpickled."""

    def __init__(self, what):
        self.what = what

    def __reduce__(self):
        return _raise, (self.what,)


def _raise(what):
    raise {"exit": SystemExit, "interrupt": KeyboardInterrupt}[what]("while it was loaded")


class TestResults:
    @pytest.mark.parametrize("executor", ["process_pool", "in_process"])
    def test_they_are_those_of_the_predictor(self, archive, executor):
        single = Predictor.from_archive(archive)
        instances = [single._json_to_instance(word) for word in WORDS[:5]]
        with ParallelPredictor.from_archive(archive, settings={"executor": executor}) as predictor:
            assert predictor.predict_json(WORDS[0]) == single.predict_json(WORDS[0])
            assert predictor.predict_batch_json(WORDS) == single.predict_batch_json(WORDS)
            assert predictor.predict_batch_json(WORDS[:1]) == single.predict_batch_json(WORDS[:1])
            assert predictor.predict_batch_json([]) == []
            one_by_one = [single.predict_json(word) for word in WORDS]
            assert list(predictor.predict_stream(WORDS)) == one_by_one
            assert predictor.predict_batch_json(WORDS, batch_size=1) == one_by_one
            groups = [single.predict_batch_json(WORDS[i : i + 8]) for i in range(0, 40, 8)]
            in_groups = list(itertools.chain(*groups))
            assert list(predictor.predict_stream(iter(WORDS), batch_size=8)) == in_groups
            expected = single.predict_instance(instances[0])
            assert predictor.predict_instance(instances[0]) == expected
            expected = single.predict_batch_instance(instances)
            assert predictor.predict_batch_instance(instances) == expected

    def test_from_path_takes_what_allennlp_takes_and_settings(self, tmp_path):
        config = tmp_path / "pool.jsonnet"
        config.write_text(
            '{executor: {max_retries: 3, threads_per_worker: 1, pin_cpus: false}, on_error: "skip"}'
        )
        overrides = '{"model.beam_search.beam_size": 1}'
        with ParallelPredictor.from_path(
            ARCHIVE,
            "seq2seq",
            num_workers=1,
            overrides=overrides,
            settings=config,
        ) as predictor:
            expected = Predictor.from_path(ARCHIVE, overrides=overrides).predict_json(WORDS[0])
            assert predictor.predict_json(WORDS[0]) == expected
            assert predictor.predict_batch_json([{"wrong": 1}, WORDS[0]]) == [expected]
            assert predictor.statistics().workers == 1

    def test_from_params(self):
        params = {
            "archive_path": str(ARCHIVE),
            "executor": {"num_workers": 1},
            "batching": {"type": "bucket", "batch_size": 4, "window": 16},
        }
        with ParallelPredictor.from_params(Params(params)) as predictor:
            assert len(list(predictor.predict_stream(WORDS))) == len(WORDS)
            assert predictor.statistics().batch_sizes == {4: 10}

    def test_what_cannot_be(self, archive):
        with pytest.raises(SettingsError, match="executor.num_workers must be at least 1"):
            ParallelPredictor.from_archive(archive, num_workers=0)
        with pytest.raises(SettingsError, match="speed is not a setting"):
            ParallelPredictor.from_archive(archive, settings={"executor.speed": 2})
        with pytest.raises(SettingsError, match="max_batch_size must be at least 1"):
            ParallelPredictor.from_archive(archive, max_batch_size=0)
        if not torch.cuda.is_available():
            with pytest.raises(ConfigurationError, match="GPU"):
                ParallelPredictor.from_archive(archive, settings={"executor.cuda_devices": [0]})
        with pytest.raises(FileNotFoundError):
            ParallelPredictor.from_path("nowhere.tar.gz", num_workers=1, import_plugins=False)
        for open_it in (ParallelPredictor.from_path, ParallelPredictor.from_archive):
            with pytest.raises(TypeError, match=r"'num_worker'; did you mean num_workers\?"):
                open_it("nowhere.tar.gz", num_worker=1)

    @pytest.mark.parametrize(
        "params, message",
        [
            ({"archiv_path": "x"}, "archiv_path is not a setting; did you mean archive_path?"),
            ({"archive_path": "x", "on_eror": "skip"}, "did you mean on_error?"),
            ({"archive_path": "x", "executor.num_worker": 2}, "did you mean executor.num_workers?"),
            ({"archive_path": "x", "max_batchsize": 2}, "did you mean max_batch_size?"),
            ({"num_workers": 1}, "archive_path is missing"),
        ],
    )
    def test_a_misspelt_key_is_named_before_anything_is_loaded(self, params, message):
        with pytest.raises(SettingsError) as caught:
            ParallelPredictor.from_params(params)
        assert message in str(caught.value)

    def test_calls_of_several_threads_can_be_predicted_together(self):
        with faulty(num_workers=1, max_batch_size=8) as predictor, ThreadPoolExecutor(8) as threads:
            inputs = [{"n": n, "do": "sleep", "seconds": 0.02} for n in range(40)]
            assert numbers(threads.map(predictor.predict_json, inputs)) == list(range(40))
            assert max(predictor.statistics().batch_sizes) > 1


class TestAStream:
    @pytest.mark.parametrize("batch_size", [1, 7])
    def test_order(self, batch_size):
        with faulty() as predictor:
            stream = predictor.predict_stream(({"n": n} for n in range(500)), batch_size)
            assert numbers(stream) == list(range(500))
            inputs = numbered(40, {0: {"do": "sleep", "seconds": 0.5}})
            done = numbers(predictor.predict_stream(inputs, batch_size, ordered=False))
            assert sorted(done) == list(range(40))
            assert done[0] != 0

    def test_a_slow_batch_does_not_break_the_order(self):
        inputs = numbered(300, {5: {"do": "sleep", "seconds": 0.5}})
        with faulty() as predictor:
            assert numbers(predictor.predict_stream(inputs)) == list(range(300))

    def test_buckets_are_put_back_into_order(self):
        batching = {"type": "bucket", "batch_size": 4, "window": 200}
        inputs = [{"n": n, "length": "x" * (n % 13)} for n in range(450)]
        with faulty(batching=batching) as predictor:
            assert numbers(predictor.predict_stream(inputs)) == list(range(450))

    def test_what_a_bucket_sorts_by(self):
        """Not by the bytes that are sent to the workers."""
        few = {"text": "wordwordwordword", "n": 0}
        many = {"text": "a b c d e f", "n": 0}
        inputs = [{**(few if n % 2 else many), "n": n} for n in range(8)]
        for length, first in (("tokens", [0, 2, 4, 6]), ("characters", [1, 3, 5, 7])):
            batching = BucketBatching(4, 8, length)
            batches = list(pickled_batches(inputs, batching, BatchKind.JSON))
            assert [list(batch.positions) for batch in batches][0] == first
            assert [pickle.loads(value)["n"] for value in batches[0].values] == first

    def test_an_input_may_be_used_again_by_who_gave_it(self):
        def same_object():
            inputs = {}
            for n in range(20):
                inputs["n"] = n
                yield inputs

        with faulty(batching={"type": "bucket", "batch_size": 4, "window": 8}) as predictor:
            assert numbers(predictor.predict_stream(same_object())) == list(range(20))

    def test_an_endless_one_in_flat_memory(self):
        taken = 0

        def endless():
            nonlocal taken
            for taken in itertools.count():
                yield {"n": taken, "pad": 100_000}

        with faulty() as predictor:
            stream = predictor.predict_stream(endless(), batch_size=4)
            used = []
            for given, output in enumerate(itertools.islice(stream, 2000)):
                assert output["n"] == given
                assert taken - given < 300
                if given % 500 == 499:
                    used.append(psutil.Process().memory_info().rss)
            assert used[-1] - used[0] < 30e6  # 150 MB have passed meanwhile
            stream.close()
            assert predictor.predict_json({"n": 1})["n"] == 1
            assert predictor.statistics().waiting == 0

    def test_results_do_not_wait_for_a_slow_source(self):
        def slow():
            for n in range(4):
                yield {"n": n, "at": time.monotonic()}
                time.sleep(0.3)

        with faulty() as predictor:
            start, times = time.monotonic(), []
            for _ in predictor.predict_stream(slow()):
                times.append(time.monotonic() - start)
        assert times[0] < 0.55 and times[1] < 0.85

    def test_the_sources_error_comes_after_what_it_gave(self):
        def broken():
            yield from numbered(10)
            raise OSError("the disk is gone")

        given = []
        with faulty() as predictor, pytest.raises(OSError, match="disk"):
            for output in predictor.predict_stream(broken(), batch_size=3):
                given.append(output["n"])
        assert given == list(range(9))

    def test_on_error(self):
        inputs = numbered(9, {3: "raise", 6: "kill"})
        with faulty() as predictor:
            stream = predictor.predict_stream(inputs, batch_size=4, on_error="skip")
            assert numbers(stream) == [0, 1, 2, 4, 5, 7, 8]
            outputs = predictor.predict_batch_json(inputs, on_error="placeholder")
            assert isinstance(outputs[3], ValueError) and isinstance(outputs[6], WorkerDied)
            assert numbers(outputs[i] for i in (0, 1, 2, 4, 5, 7, 8)) == [0, 1, 2, 4, 5, 7, 8]
            stream = predictor.predict_stream(inputs)
            assert numbers(itertools.islice(stream, 3)) == [0, 1, 2]
            with pytest.raises(ValueError):
                next(stream)
            assert list(stream) == []
            with pytest.raises(SettingsError, match="on_error"):
                predictor.predict_stream(inputs, on_error="ignore")


class TestErrors:
    def test_the_models_own_with_the_remote_traceback(self):
        with faulty() as predictor:
            with pytest.raises(ValueError, match="cannot take 5") as raised:
                predictor.predict_json({"n": 5, "do": "raise"})
            assert isinstance(raised.value.__cause__, RemoteTraceback)
            assert "in _raise" in str(raised.value.__cause__)
            with pytest.raises(ValueError, match="cannot take 1"):
                predictor.predict_batch_json(numbered(3, {1: "raise"}))

    def test_what_cannot_be_sent_is_the_callers_error(self):
        with faulty() as predictor:
            with pytest.raises(TypeError, match="pickle"):
                predictor.predict_json({"n": threading.Lock()})
            assert predictor.predict_json({"n": 1})["n"] == 1

    def test_an_output_that_cannot_be_printed_costs_that_call_only(self, monkeypatch):
        class Printing(type(predictor_of())):  # type: ignore[misc]
            def predict_json(self, inputs):
                print("seen" if inputs["n"] else "")
                return inputs

        class Full(io.StringIO):
            def write(self, text):
                if "seen" in text:
                    raise OSError("no space left")
                return len(text)

        with ParallelPredictor(lambda: predictor_of(Printing), settings_of()) as predictor:
            with monkeypatch.context() as patched:
                patched.setattr(sys, "stdout", Full())
                with pytest.raises(OSError, match="no space left"):
                    predictor.predict_json({"n": 1})
                assert predictor.predict_json({"n": 0}) == {"n": 0}

    @pytest.mark.parametrize("what", ["exit", "interrupt"])
    def test_an_output_that_cannot_be_unpickled_costs_that_call_only(self, what):
        """Whatever it raises, nobody waits for ever."""

        class Raising(type(predictor_of())):  # type: ignore[misc]
            def predict_json(self, inputs):
                return {"n": 0, "bad": Unloadable(what)} if inputs["n"] else inputs

        with ParallelPredictor(lambda: predictor_of(Raising), settings_of()) as predictor:
            expected = {"exit": SystemExit, "interrupt": KeyboardInterrupt}[what]
            with pytest.raises(expected, match="while it was loaded"):
                predictor.predict_json({"n": 1})
            assert predictor.predict_json({"n": 0}) == {"n": 0}

    def test_a_killed_worker_is_replaced_and_nobody_notices(self):
        with faulty() as predictor:
            stream = predictor.predict_stream({"n": n} for n in range(3000))
            for output in stream:
                if output["n"] in (200, 700):
                    workers()[0].kill()
            deadline = time.monotonic() + 10  # the last one may have had nothing left to do
            while predictor.statistics().restarts < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
            assert predictor.statistics().restarts == 2

    def test_inputs_that_kill_do_not_end_the_pool(self):
        with faulty(num_workers=1, max_retries=0) as predictor:
            assert predictor.predict_json({"n": 0})["n"] == 0
            for n in range(5):
                with pytest.raises(WorkerDied):
                    predictor.predict_json({"n": n, "do": "kill"})
            assert predictor.predict_json({"n": 7})["n"] == 7

    def test_a_model_that_no_worker_survives(self):
        with faulty({"loading_fault": "kill in worker"}) as predictor:
            with pytest.raises(WorkerDied):
                predictor.predict_json({"n": 0})
            with pytest.raises(PredictorClosed, match="was ended by SIGKILL"):
                predictor.predict_json({"n": 0})

    def test_a_model_with_state_runs_in_order(self):
        with faulty({"keeps_state": True}, num_workers=3) as predictor:
            outputs = predictor.predict_stream({"n": n} for n in range(20))
            assert [output["seen"] for output in outputs] == list(range(1, 21))

    def test_what_the_predictor_prints_is_printed(self, capsys):
        class Printing(type(predictor_of())):  # type: ignore[misc]
            def predict_json(self, inputs):
                print("seen", inputs["n"])
                return inputs

        with ParallelPredictor(lambda: predictor_of(Printing), settings_of()) as predictor:
            predictor.predict_json({"n": 3})
        assert capsys.readouterr().out == "seen 3\n"


@pytest.mark.timeout(120)
def test_a_model_computes_in_the_precision_of_the_settings():
    found = {}
    for precision in ("fp32", "bf16"):
        settings = {"precision": precision}
        with ParallelPredictor.from_path(ARCHIVE, num_workers=1, settings=settings) as predictor:
            outputs = predictor.predict_stream(WORDS[:8], batch_size=8)
            found[precision] = [output["class_log_probabilities"][0] for output in outputs]
    differences = [abs(a - b) for a, b in zip(found["fp32"], found["bf16"])]
    assert len(differences) == 8 and 1e-5 < max(differences) < 0.5
