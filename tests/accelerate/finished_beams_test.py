"""Beam searches that decode live beams only, next to AllenNLP's own."""

import gc
import json
import random
import sys
import weakref
from pathlib import Path

import pytest
import torch
from allennlp.data import Vocabulary
from allennlp.models import load_archive
from allennlp.modules.token_embedders import Embedding
from allennlp.nn import beam_search
from allennlp.nn.beam_search import BeamSearch, RepeatedNGramBlockingConstraint
from allennlp.predictors import Predictor
from allennlp_models.generation.modules.decoder_nets import StackedSelfAttentionDecoderNet
from allennlp_models.generation.modules.seq_decoders import AutoRegressiveSeqDecoder

from allennlp_parallel_predict.accelerate import finished_beams, row_invariance
from allennlp_parallel_predict.accelerate.finished_beams import decode_live_beams_only
from tests.contract.parity_test import SENTENCES

DEMO = Path(__file__).parent.parent.parent / "examples" / "g2p"
BATCH, BEAM, CLASSES, SIZE = 12, 4, 9, 16

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setattr(BeamSearch, "_search", BeamSearch._search)
    monkeypatch.setattr(finished_beams, "KNOWN_PACKAGES", (*finished_beams.KNOWN_PACKAGES, "tests"))
    # They would not pay with models as small as these.
    monkeypatch.setattr(row_invariance, "_FIRST_TRIALS", 1e9)


class Decoder(torch.nn.Module):
    """Chooses ends now and then. The outputs of its encoder stay, its hidden states move."""

    def __init__(self, layers: int = 1, weight: float = 3.0) -> None:
        super().__init__()
        torch.manual_seed(layers)
        self.embedding = torch.nn.Embedding(CLASSES, SIZE)
        self.cell = torch.nn.LSTMCell(2 * SIZE, SIZE)
        self.deep = torch.nn.LSTM(2 * SIZE, SIZE, layers)
        self.out = torch.nn.Linear(SIZE, CLASSES)
        self.out.bias.data[0] += 0.25  # so that beams end at different times
        self.layers = layers
        self.weight = weight
        self.sizes = []

    def start(self, batch=BATCH):
        torch.manual_seed(5)
        shape = (batch, SIZE) if self.layers == 1 else (self.layers, batch, SIZE)
        return {
            "encoder_outputs": torch.randn(batch, 6, SIZE) * self.weight,
            "decoder_hidden": torch.randn(shape),
            "decoder_context": torch.randn(shape),
        }

    def step(self, tokens, state, timestep):
        self.sizes.append(len(tokens))
        hidden, context = state["decoder_hidden"], state["decoder_context"]
        top = hidden if self.layers == 1 else hidden[0]
        outputs = state["encoder_outputs"]
        weights = torch.softmax(outputs.bmm(top.unsqueeze(-1)).squeeze(-1), -1)
        attended = weights.unsqueeze(1).bmm(outputs).squeeze(1)
        given = torch.cat([self.embedding(tokens), attended], -1)
        if self.layers == 1:
            top, context = self.cell(given, (hidden, context))
            hidden = top
        else:
            _, (hidden, context) = self.deep(given.unsqueeze(0), (hidden, context))
            top = hidden[-1]
        state["decoder_hidden"], state["decoder_context"] = hidden, context
        return self.log_probabilities(top), state

    def log_probabilities(self, top):
        return torch.log_softmax(self.out(top) * self.weight, -1)


class Uneven(Decoder):
    """Computes its last rows in another way, as many kernels do."""

    def log_probabilities(self, top):
        last = torch.zeros(len(top), 1)
        last[-2:] = 1e-3
        return super().log_probabilities(top + last)


class Growing(Decoder):
    """What it keeps gets longer at each step; it asks for the time."""

    def step(self, tokens, state, timestep):
        past = state.get("past")
        now = self.embedding(tokens).unsqueeze(1)
        past = now if past is None else torch.cat([past, now], 1)
        log_probabilities, state = super().step(tokens, state, timestep)
        state["past"] = past
        assert past.size(1) == timestep + 1
        mixed = log_probabilities + self.out(past.sum(1))
        return torch.log_softmax(mixed, -1), state


class Unsettled(Decoder):
    """Leaves the outputs of its encoder alone until the third step."""

    def step(self, tokens, state, timestep):
        log_probabilities, state = super().step(tokens, state, timestep)
        if timestep > 2:
            state["encoder_outputs"] = state["encoder_outputs"] + log_probabilities[:, :1, None]
        return log_probabilities, state


class WithNothing(Decoder):
    """Has a part of the state that is not there, as some transformers have."""

    def step(self, tokens, state, timestep):
        return super().step(tokens, {**state, "nothing": None}, timestep)


class Narrow(Decoder):
    """Has beams that cannot go on: others, which had ended, take their places."""

    def log_probabilities(self, top):
        log_probabilities = super().log_probabilities(top)
        log_probabilities[top[:, 0] > 0.3] = -float("inf")
        return log_probabilities


def new_search(**options):
    options = {"max_steps": 30, "beam_size": BEAM, "vocab": Vocabulary(), **options}
    return BeamSearch(end_index=0, **options)


def search_with(decoder, search=None, times=1, batch=BATCH):
    decoder.sizes = []
    for _ in range(times):
        found = (search or new_search()).search(
            torch.ones(batch, dtype=torch.long), decoder.start(batch), decoder.step
        )
    return found


def assert_same(decoder, search=None, times=3, batch=BATCH):
    """Gives the numbers of rows, at AllenNLP's steps and at ours."""
    theirs = search_with(decoder, search, batch=batch)
    sizes = decoder.sizes
    decode_live_beams_only(decoder)
    ours = search_with(decoder, search, times, batch)
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])
    return sizes, decoder.sizes


def left_out(sizes, batch=BATCH):
    return {size for size in sizes if size < batch * BEAM} - {batch}


@pytest.mark.parametrize(
    "decoder",
    [Decoder(), Decoder(layers=2), Uneven(), Unsettled()],
    ids=lambda decoder: type(decoder).__name__ + str(decoder.layers),
)
def test_the_same_bits_from_fewer_rows(decoder):
    theirs, ours = assert_same(decoder)
    assert not left_out(theirs)
    assert left_out(ours)


@pytest.mark.parametrize("seed", range(16))
def test_models_of_all_sizes(monkeypatch, seed):
    """Small ones are where two orders of summation often give the same number."""
    choice = random.Random(seed).choice
    sizes = {"SIZE": (3, 5, 8, 17, 32, 100), "CLASSES": (9, 20, 45), "BEAM": range(1, 9)}
    for name, values in sizes.items():
        monkeypatch.setattr(sys.modules[__name__], name, choice(values))
    decoder = choice([Decoder, Unsettled])(choice([1, 2]))
    assert_same(decoder, batch=choice(range(4, 40)))


def test_a_state_that_grows():
    """What one step has shown says nothing of the next: after the first search, all rows again."""
    decoder = Growing()
    theirs, ours = assert_same(decoder)
    assert not left_out(ours[-len(theirs) :])


def test_the_uneven_rows_are_seen():
    """Else the test above says nothing."""
    decoder = Uneven()
    theirs = search_with(decoder)
    decode_live_beams_only(decoder, exact=False)
    assert not torch.equal(search_with(decoder)[1], theirs[1])


def test_nothing_is_tried_where_last_digits_do_not_matter():
    decoder = Decoder()
    steps = len(search_with(decoder) and decoder.sizes)
    decode_live_beams_only(decoder, exact=False)
    search_with(decoder)
    assert len(decoder.sizes) == steps and left_out(decoder.sizes)


class Dropping(Decoder):
    """Draws random numbers, though it is not trained."""

    def log_probabilities(self, top):
        return super().log_probabilities(torch.nn.functional.dropout(top, 0.1))


def test_random_numbers_are_drawn_as_before():
    decoder = Dropping()
    torch.manual_seed(7)
    theirs = search_with(decoder), torch.rand(1)
    sizes = decoder.sizes
    decode_live_beams_only(decoder)
    torch.manual_seed(7)
    ours = search_with(decoder), torch.rand(1)
    assert decoder.sizes == sizes
    assert torch.equal(ours[0][1], theirs[0][1])


def test_quantized_layers_look_at_all_rows():
    decoder = torch.quantization.quantize_dynamic(Decoder().eval(), {torch.nn.Linear})
    theirs, ours = assert_same(decoder, times=1)
    assert ours == theirs


def test_somebody_looks_inside():
    decoder, seen = Decoder(), []
    decoder.cell.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    theirs, ours = assert_same(decoder, times=1)
    assert ours == theirs and seen == 2 * theirs


def test_a_step_of_the_users_own(monkeypatch):
    monkeypatch.setattr(finished_beams, "KNOWN_PACKAGES", finished_beams.KNOWN_PACKAGES[:3])
    monkeypatch.setattr(Decoder, "__module__", "allennlp.mine")
    theirs, ours = assert_same(Decoder(), times=1)
    assert ours == theirs


def test_what_a_search_keeps(monkeypatch):
    """Trials do not keep the searches that they come from."""
    kept = weakref.WeakSet()
    init = finished_beams._LiveStep.__init__

    def noted(self, *args):
        init(self, *args)
        kept.add(self)

    monkeypatch.setattr(finished_beams._LiveStep, "__init__", noted)
    assert_same(Decoder())
    gc.collect()
    assert not kept


def test_a_state_with_parts_that_are_not_there():
    theirs, ours = assert_same(WithNothing(), times=1)
    assert ours == theirs


def test_beams_that_go_on_after_their_end():
    decoder = Narrow()
    with pytest.warns(RuntimeWarning, match="Negligible log probabilities"):
        assert_same(decoder)


def test_the_search_that_starts_again_finds_its_start_unchanged():
    decoder = Narrow()
    decode_live_beams_only(decoder)
    state = decoder.start()
    with pytest.warns(RuntimeWarning):
        new_search().search(torch.ones(BATCH, dtype=torch.long), state, decoder.step)
    assert not any(key.startswith("allennlp_parallel_predict") for key in state)


@pytest.mark.parametrize(
    "options",
    [{"min_steps": 6}, {"beam_size": 1}, {"per_node_beam_size": 2}]
    + [{"final_sequence_scorer": beam_search.LengthNormalizedSequenceLogProbabilityScorer()}],
    ids=str,
)
def test_the_options_of_a_search(options):
    assert_same(Decoder(), new_search(**options), batch=24)


@pytest.mark.parametrize(
    "search",
    [
        new_search(constraints=[]),
        new_search(sampler=beam_search.TopKSampler(k=5)),
        type("Mine", (BeamSearch,), {})(end_index=0, beam_size=BEAM, max_steps=30),
    ],
    ids=["constraint", "sampler", "class"],
)
def test_searches_that_stay_as_they_are(search, request):
    if "constraint" in request.node.name:
        search.constraints = [RepeatedNGramBlockingConstraint(2)]
    decoder = Decoder()
    decode_live_beams_only(decoder)
    search_with(decoder, search)
    assert set(decoder.sizes) == {BATCH, BATCH * BEAM}


def test_models_with_modules_of_the_users_own_stay_as_they_are(monkeypatch):
    monkeypatch.setattr(finished_beams, "KNOWN_PACKAGES", finished_beams.KNOWN_PACKAGES[:3])
    theirs, ours = assert_same(Decoder(), times=1)
    assert ours == theirs


def test_steps_that_do_not_belong_to_a_model_stay_as_they_are():
    decoder = Decoder()
    decode_live_beams_only(decoder)
    tokens = torch.ones(BATCH, dtype=torch.long)
    new_search().search(tokens, decoder.start(), lambda a, b, c: decoder.step(a, b, c))
    assert set(decoder.sizes) == {BATCH, BATCH * BEAM}


def test_small_batches_stay_as_they_are():
    theirs, ours = assert_same(Decoder(), times=1, batch=3)
    assert ours == theirs


def test_only_allennlps_own_search_is_replaced(monkeypatch):
    def theirs(self, start_predictions, start_state, step):
        pass

    monkeypatch.setattr(BeamSearch, "_search", theirs)
    decode_live_beams_only(Decoder())
    assert BeamSearch._search is theirs


def spied(model, step="take_step"):
    """The numbers of rows at the steps of a model from now on."""
    sizes, original = [], getattr(model, step)

    def spy(self, tokens, state, timestep):
        sizes.append(len(tokens))
        return original(tokens, state, timestep)

    setattr(model, step, spy.__get__(model))
    return sizes


def assert_same_predictions(predictor, inputs, size, sizes):
    """Twice, so that the second time shows what trials brought; gives the part of rows decoded."""
    batches = [inputs[start : start + size] for start in range(0, len(inputs), size)]

    def run():
        sizes.clear()
        return [json.dumps(o) for batch in batches for o in predictor.predict_batch_json(batch)]

    theirs, full = run(), sum(sizes)
    decode_live_beams_only(predictor._model)
    assert run() == theirs
    assert run() == theirs
    assert len(set(theirs)) > len(theirs) / 20
    return sum(sizes) / full


@pytest.mark.parametrize("size", [32, 13])
def test_the_demo(size):
    predictor = Predictor.from_archive(load_archive(str(DEMO / "model.tar.gz")))
    inputs = [json.loads(line) for line in (DEMO / "words.jsonl").open()][:192]
    sizes = spied(predictor._model)
    assert assert_same_predictions(predictor, inputs, size, sizes) < 0.95


@pytest.mark.parametrize(
    "name, step, output",
    [
        ("seq2seq", "take_step", "_output_projection_layer"),
        ("copynet", "take_search_step", "_output_generation_layer"),
    ],
)
def test_other_archives(archives, name, step, output):
    predictor = Predictor.from_archive(load_archive(archives(name)), "seq2seq")
    model = predictor._model
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter)  # hardly trained, it says always the same
    getattr(model, output).bias.data[model._end_index] += 2
    words = [text.split() for text in SENTENCES]
    inputs = [{"source": " ".join(text[n:])} for text in words for n in range(len(text))]
    assert assert_same_predictions(predictor, inputs, 24, spied(model, step)) < 0.95


def test_a_transformers_decoder():
    """Whose state gets longer at each step."""
    torch.manual_seed(0)
    vocabulary = Vocabulary()
    for number in range(CLASSES):
        vocabulary.add_token_to_namespace(str(number), "targets")
    for token in ("@start@", "@end@"):
        vocabulary.add_token_to_namespace(token, "targets")
    decoder = AutoRegressiveSeqDecoder(
        vocabulary,
        StackedSelfAttentionDecoderNet(SIZE, SIZE, 32, 2, 4),
        Embedding(SIZE, vocabulary.get_vocab_size("targets")),
        target_namespace="targets",
        beam_search=beam_search.Lazy(BeamSearch, constructor_extras={"beam_size": 4}),
        scheduled_sampling_ratio=0.0,
    ).eval()
    decoder._output_projection_layer.bias.data[decoder._end_index] += 1.5
    sizes = spied(decoder)
    encoded = {
        "encoder_outputs": torch.randn(BATCH, 5, SIZE),
        "source_mask": torch.ones(BATCH, 5, dtype=torch.bool),
    }

    def decode():
        with torch.no_grad():
            return decoder(dict(encoded))

    theirs = decode()
    decode_live_beams_only(decoder)
    for _ in range(3):
        sizes.clear()
        ours = decode()
        assert torch.equal(ours["predictions"], theirs["predictions"])
        assert torch.equal(ours["class_log_probabilities"], theirs["class_log_probabilities"])
    assert set(sizes) == {BATCH, BATCH * 4}
