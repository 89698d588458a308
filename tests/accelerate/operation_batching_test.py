"""Lines that pass the layers of a transformer together, next to the same lines one by one."""

import json
import os
import signal
import threading

import pytest
import torch
from allennlp.models import load_archive
from allennlp.predictors import Predictor, TextClassifierPredictor
from transformers import BertConfig, RobertaConfig

from allennlp_parallel_predict.accelerate import operation_batching, shared_layers
from allennlp_parallel_predict.accelerate.operation_batching import (
    GROUP_SIZE,
    OperationBatcher,
)
from allennlp_parallel_predict.accelerate.padding import skip_padding
from allennlp_parallel_predict.accelerate.shared_layers import layers_to_share
from allennlp_parallel_predict.common.messages import Batch, BatchKind, OnError, WorkerOptions
from allennlp_parallel_predict.executors import ProcessPoolExecutor
from allennlp_parallel_predict.common.remote_errors import RemoteError
from allennlp_parallel_predict.worker.worker import Worker
from tests.accelerate.padding_test import new_transformer
from tests.contract.parity_test import SENTENCES
from tests.support.faults import run

SHAPE = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
LAYERS = 2 * 6 + 1
"""Two layers of six, and the pooler's."""
TEXTS = [" ".join(text.split() * repeats) for text in SENTENCES for repeats in (1, 2, 3)]
LINES_OF_TEXT = [json.dumps({"sentence": text}) + "\n" for text in TEXTS + ["long " * 80]]

pytestmark = pytest.mark.timeout(120)


def load(archives, config=BertConfig):
    predictor = Predictor.from_archive(load_archive(archives("transformer_classifier")))
    new_transformer(predictor, config, **SHAPE, max_position_embeddings=1024)
    predictor._model._seq2vec_encoder._embedding_dim = 64
    predictor._model._classification_layer = torch.nn.Linear(64, 2)
    pooler = predictor._model._seq2vec_encoder.pooler
    pooler.dense = torch.nn.Linear(64, 64)
    return predictor


@pytest.fixture(params=[BertConfig, RobertaConfig])
def predictor(archives, request):
    return load(archives, request.param)


def batches(lines=LINES_OF_TEXT):
    return [Batch(n, BatchKind.LINES, [line], (), ()) for n, line in enumerate(lines)]


def one_by_one(predictor, lines=LINES_OF_TEXT, options=WorkerOptions()):
    return list(map(Worker(predictor, options).predict, batches(lines)))


def in_groups(worker, batches, size=GROUP_SIZE):
    groups = [batches[start : start + size] for start in range(0, len(batches), size)]
    return [result for group in groups for result in worker.predict_at_once(group)]


def outputs(results):
    assert [result.number for result in results] == list(range(len(results)))
    return ["".join(map(str, result.outputs)) for result in results]


@pytest.mark.parametrize("is_tuned", [True, False])
@pytest.mark.parametrize("exact", [True, False])
def test_the_same_from_fewer_products(predictor, counts, exact, is_tuned):
    theirs = outputs(one_by_one(predictor))
    alone = len(counts)
    layers = layers_to_share(predictor, is_asked_for=True)
    if is_tuned:
        skip_padding(predictor._model, exact)
    worker = Worker(predictor, WorkerOptions(), OperationBatcher(layers, exact))
    for _ in range(2):  # the second time, all numbers of rows are known
        counts.clear()
        ours = outputs(in_groups(worker, batches()))
        if exact:
            assert ours == theirs
        assert [json.loads(o)["label"] for o in ours] == [json.loads(t)["label"] for t in theirs]
    assert len(set(theirs)) > 20
    if exact:
        # What is left is the long line, and the last rows of each of the others.
        assert max(counts) > 300 and sum(rows > 30 for rows in counts) < alone / 3
    else:
        assert len(counts) < alone / 3


def test_all_sizes_of_groups(predictor):
    theirs = outputs(one_by_one(predictor))
    worker = Worker(predictor, WorkerOptions(), OperationBatcher(layers_to_share(predictor, True)))
    for size in range(1, GROUP_SIZE + 1):
        assert outputs(in_groups(worker, batches(), size)) == theirs


def test_a_bad_line_costs_one_line(predictor, capsys):
    class Printing(type(predictor)):
        def predict_instance(self, instance):
            print("before", len(instance["tokens"].tokens))
            output = super().predict_instance(instance)
            print("after")
            return output

    predictor.__class__ = Printing
    options = WorkerOptions(on_error=OnError.SKIP)
    lines = LINES_OF_TEXT[:5] + ["{\n", '{"wrong": 1}\n', LINES_OF_TEXT[5]]
    theirs = one_by_one(predictor, lines, options)
    worker = Worker(predictor, options, OperationBatcher(layers_to_share(predictor, True)))
    ours = list(worker.predict_at_once(batches(lines)))
    assert [r._replace(failures=[]) for r in ours] == [r._replace(failures=[]) for r in theirs]
    failed = [[f.error.type_name for f in result.failures] for result in ours]
    assert (
        failed[5:7] == [["json.decoder.JSONDecodeError"], ["KeyError"]]
        and sum(map(bool, failed)) == 2
    )
    assert ours[0].printed and "before" in ours[0].printed[0] and "after" in ours[0].printed[0]
    assert capsys.readouterr().out == ""


def test_what_cannot_even_be_reported_ends_the_worker(predictor, monkeypatch):
    """And is not taken for a line without an output; nor does it leave others waiting."""

    def of(error):
        raise ValueError("nothing to say")

    monkeypatch.setattr(RemoteError, "of", of)

    class Failing(type(predictor)):
        def predict_json(self, inputs):
            if inputs["sentence"] == "bad":
                raise KeyError
            return super().predict_json(inputs)

    predictor.__class__ = Failing
    bad = json.dumps({"sentence": "bad"})
    worker = Worker(predictor, WorkerOptions(), OperationBatcher(layers_to_share(predictor, True)))
    for _ in range(GROUP_SIZE + 1):  # no thread is lost
        with pytest.raises(ValueError, match="nothing to say"):
            in_groups(worker, batches([bad, *LINES_OF_TEXT[:3], bad]))
    theirs = outputs(one_by_one(predictor))
    assert outputs(in_groups(worker, batches())) == theirs


def test_what_fails_in_a_thread_is_tried_without(predictor):
    """As what a library does for its own thread alone."""
    home = threading.get_ident()

    class AtHome(type(predictor)):
        def predict_json(self, inputs):
            assert len(inputs["sentence"]) % 2 or threading.get_ident() == home, "not at home"
            return super().predict_json(inputs)

    theirs = outputs(one_by_one(predictor))
    predictor.__class__ = AtHome
    worker = Worker(predictor, WorkerOptions(), OperationBatcher(layers_to_share(predictor, True)))
    assert outputs(in_groups(worker, batches())) == theirs


def test_a_layer_that_fails_in_a_group_is_tried_by_each_line(predictor, monkeypatch):
    theirs = outputs(one_by_one(predictor))
    failures = []

    def fail(plan, layer, rows):
        failures.append(len(rows))
        raise RuntimeError("not enough memory")

    monkeypatch.setattr(operation_batching._GemmPlan, "_forward", fail)
    worker = Worker(predictor, WorkerOptions(), OperationBatcher(layers_to_share(predictor, True)))
    assert outputs(in_groups(worker, batches())) == theirs
    assert failures


def test_a_model_that_keeps_state_is_left_alone_from_then_on(predictor):
    model = predictor._model
    model.register_buffer("seen", torch.zeros(1))
    forward = model.forward

    def counting(**tensors):
        model.seen += 1
        return forward(**tensors)

    model.forward = counting
    worker = Worker(predictor, WorkerOptions(), OperationBatcher(layers_to_share(predictor, True)))
    assert worker.most_at_once == GROUP_SIZE
    assert "seen" in worker.predict(batches()[0]).state_change
    assert worker.most_at_once == 1


def test_whoever_looks_inside_sees_one_line_after_the_other(predictor, counts):
    worker = Worker(predictor, WorkerOptions(), OperationBatcher(layers_to_share(predictor, True)))
    seen = []
    layer = predictor._model._text_field_embedder.token_embedder_tokens.transformer_model
    hook = layer.encoder.layer[0].output.dense.register_forward_hook(
        lambda module, inputs, output: seen.append(len(output))
    )
    assert len(list(worker.predict_at_once(batches()[:4]))) == 4
    assert seen == [1] * 4 and len(counts) == 4 * (LAYERS - 1)
    hook.remove()


def test_the_system_has_no_threads_left(predictor, monkeypatch):
    theirs = outputs(one_by_one(predictor))

    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(operation_batching.threading.Thread, "start", start)
    worker = Worker(predictor, WorkerOptions(), OperationBatcher(layers_to_share(predictor, True)))
    assert worker.most_at_once == 1
    assert outputs(in_groups(worker, batches(), worker.most_at_once)) == theirs


def test_the_system_has_few_threads_left(predictor, monkeypatch):
    theirs = outputs(one_by_one(predictor))
    start, started = operation_batching.threading.Thread.start, []

    def start_three(thread):
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(operation_batching.threading.Thread, "start", start_three)
    worker = Worker(predictor, WorkerOptions(), OperationBatcher(layers_to_share(predictor, True)))
    assert worker.most_at_once == 3
    assert outputs(in_groups(worker, batches(), 3)) == theirs


class Dying(TextClassifierPredictor):
    """Its process ends with some lines."""

    def predict_json(self, inputs):
        if inputs["sentence"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict_json(inputs)


class TestInAPool:
    @pytest.fixture
    def predictor(self, archives):
        predictor = load(archives)
        predictor.__class__ = Dying
        return predictor

    @pytest.mark.parametrize("workers, max_retries", [(1, 0), (1, 1), (2, 0), (2, 1)])
    def test_only_the_lines_that_kill_are_lost(self, predictor, tmp_path, workers, max_retries):
        lines = LINES_OF_TEXT[:-1]
        theirs = outputs(one_by_one(predictor, lines))
        for lost in (0, 9, 10, 30):
            lines[lost], theirs[lost] = json.dumps({"sentence": "die"}) + "\n", ""
        executor = ProcessPoolExecutor(workers, operation_batching=True, max_retries=max_retries)
        ran = run(map(str.strip, lines), tmp_path, 1, predictor=predictor, executor=executor)
        assert (ran.failed, ran.output) == ([0, 9, 10, 30], "".join(theirs))
        assert executor._group_size > 1 and ran.restarts <= 4 * (2 + max_retries)

    def test_by_default_if_it_is_allennlps_code_and_worth_it(self, archives, tmp_path, monkeypatch):
        monkeypatch.setattr(shared_layers, "_SMALLEST", 0)
        predictor, lines = load(archives), LINES_OF_TEXT[:20]
        theirs = outputs(one_by_one(predictor, lines))
        executor = ProcessPoolExecutor(2, max_batches_per_worker=4)
        ran = run(map(str.strip, lines), tmp_path, 1, predictor=predictor, executor=executor)
        assert executor._group_size > 1 and ran.output == "".join(theirs)

    @pytest.mark.parametrize(
        "settings",
        [{}, {"operation_batching": False}, {"operation_batching": True, "batch_timeout": 60.0}]
        + [{"operation_batching": True, "threads_per_worker": 2}],
    )
    def test_not_if_it_should_not_or_cannot_be(self, predictor, tmp_path, settings):
        lines = LINES_OF_TEXT[:4]
        executor = ProcessPoolExecutor(1, **settings)
        ran = run(map(str.strip, lines), tmp_path, 1, predictor=predictor, executor=executor)
        assert executor._group_size == 1 and ran.output.count("\n") == 4
