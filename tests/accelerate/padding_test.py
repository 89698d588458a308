"""Transformers without their padding, next to the same ones with it."""

import json

import pytest
import torch
from allennlp.data import Batch, Vocabulary
from allennlp.data.dataset_readers import SequenceTaggingDatasetReader
from allennlp.data.token_indexers import PretrainedTransformerMismatchedIndexer
from allennlp.data.tokenizers import Token
from allennlp.models import SimpleTagger, load_archive
from allennlp.modules.seq2seq_encoders import PassThroughEncoder
from allennlp.modules.seq2vec_encoders import (
    BagOfEmbeddingsEncoder,
    ClsPooler,
    CnnEncoder,
)
from allennlp.modules.text_field_embedders import BasicTextFieldEmbedder
from allennlp.modules.token_embedders import PretrainedTransformerMismatchedEmbedder
from allennlp.predictors import Predictor
from transformers import (
    AlbertConfig,
    AutoModel,
    BertConfig,
    CamembertConfig,
    ConvBertConfig,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from allennlp_parallel_predict.accelerate import row_invariance
from allennlp_parallel_predict.accelerate.padding import skip_padding
from tests.contract.parity_test import SENTENCES

SHAPE = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
DISTILLED = dict(dim=8, n_layers=2, n_heads=2, hidden_dim=16)
TEXTS = [" ".join(text.split()[: n + 1]) for text in SENTENCES for n in range(5)] * 2
INPUTS = [{"sentence": text} for text in TEXTS]

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(autouse=True)
def trials_are_free(monkeypatch):
    """They would not pay with models as small as these."""
    monkeypatch.setattr(row_invariance, "_FIRST_TRIALS", 1e9)


@pytest.fixture
def predictor(archives):
    predictor = Predictor.from_archive(load_archive(archives("transformer_classifier")))
    torch.manual_seed(3)
    for parameter in predictor._model.parameters():
        parameter.data += torch.randn_like(parameter) / 4  # as it is, all texts are alike to it
    return predictor


def embedder_of(predictor):
    return predictor._model._text_field_embedder.token_embedder_tokens


def new_transformer(predictor, config, **shape):
    torch.manual_seed(1)
    vocabulary = embedder_of(predictor).transformer_model.config.vocab_size
    model = AutoModel.from_config(config(vocab_size=vocabulary, **{**SHAPE, **shape})).eval()
    embedder_of(predictor).transformer_model = model
    for parameter in model.parameters():
        parameter.data += torch.randn_like(parameter) / 4
    return model


def outputs(predictor, size=40):
    batches = [INPUTS[start : start + size] for start in range(0, len(INPUTS), size)]
    return [json.dumps(o) for batch in batches for o in predictor.predict_batch_json(batch)]


@pytest.fixture
def rows_saved(predictor, counts):
    def rows_saved(exact=True, times=3):
        """The part of the rows that is not computed any more, the outputs being the same."""
        theirs, full = outputs(predictor), sum(counts)
        skip_padding(predictor._model, exact)
        for _ in range(times):
            counts.clear()
            ours = outputs(predictor)
            if exact:
                assert ours == theirs
        assert len(set(theirs)) > 20
        return 1 - sum(counts) / full

    return rows_saved


@pytest.mark.parametrize(
    "config, shape",
    [
        (BertConfig, {}),
        (RobertaConfig, {}),
        (XLMRobertaConfig, {}),
        (CamembertConfig, {}),
        (ElectraConfig, {"embedding_size": 6}),
        (MPNetConfig, {}),
        (AlbertConfig, {"embedding_size": 6}),
        (DistilBertConfig, DISTILLED),
        (BertConfig, {"position_embedding_type": "relative_key_query"}),
        (BertConfig, {"chunk_size_feed_forward": 1}),
    ],
)
def test_the_same_bits_from_fewer_rows(predictor, rows_saved, config, shape):
    new_transformer(predictor, config, **shape)
    assert rows_saved() > 0.2


def poolers():
    return [
        BagOfEmbeddingsEncoder(8),
        BagOfEmbeddingsEncoder(8, averaged=True),
        ClsPooler(8),
        ClsPooler(8, cls_is_last_token=True),
    ]


@pytest.mark.parametrize("pooler", poolers(), ids=lambda pooler: str(vars(pooler))[-40:])
def test_what_comes_after_it(predictor, rows_saved, pooler):
    predictor._model._seq2vec_encoder = pooler
    assert rows_saved() > 0.2


def test_a_mix_of_its_layers(predictor, rows_saved):
    embedder = embedder_of(predictor)
    embedder._scalar_mix = torch.nn.Module()
    embedder._scalar_mix.forward = sum
    embedder.transformer_model.config.output_hidden_states = True
    assert rows_saved() > 0.2


def test_texts_longer_than_the_transformer(predictor, rows_saved):
    embedder_of(predictor)._max_length = 32
    indexer = predictor._dataset_reader._token_indexers["tokens"]
    indexer._max_length = 32
    indexer._effective_max_length = 30
    rows_saved()


def test_a_model_that_looks_at_words(predictor, counts):
    """Whatever it does: padding is no part of any word."""
    name = embedder_of(predictor).transformer_model.config._name_or_path
    embedder = PretrainedTransformerMismatchedEmbedder(name)
    embedder._matched_embedder.transformer_model = embedder_of(predictor).transformer_model
    reader = SequenceTaggingDatasetReader(
        token_indexers={"tokens": PretrainedTransformerMismatchedIndexer(name)}
    )
    vocabulary = Vocabulary({"labels": {"a": 1, "b": 1, "c": 1}})
    tagger = SimpleTagger(
        vocabulary, BasicTextFieldEmbedder({"tokens": embedder}), PassThroughEncoder(8)
    ).eval()
    batch = [reader.text_to_instance([Token(word) for word in text.split()]) for text in TEXTS]
    for instance in batch:
        reader.apply_token_indexers(instance)

    def logits():
        counts.clear()
        return [output["logits"].tolist() for output in tagger.forward_on_instances(batch)]

    theirs, full = logits(), sum(counts)
    skip_padding(tagger)
    logits()  # tries the numbers of rows
    assert logits() == theirs
    assert 0 < sum(counts) < 0.8 * full


def test_nothing_is_tried_where_last_digits_do_not_matter(predictor, rows_saved):
    assert rows_saved(exact=False, times=1) > 0.2


def test_trials_draw_no_random_numbers_of_the_users(predictor):
    skip_padding(predictor._model)
    state = torch.get_rng_state()
    outputs(predictor)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_transformer_whose_tokens_all_see_padding(predictor, rows_saved):
    new_transformer(predictor, ConvBertConfig, embedding_size=8)
    assert rows_saved(times=1) == 0


def test_a_decoder(predictor, rows_saved):
    new_transformer(predictor, BertConfig, is_decoder=True)
    assert rows_saved(times=1) == 0


def test_an_encoder_that_may_see_padding(predictor, rows_saved):
    predictor._model._seq2vec_encoder = CnnEncoder(8, 2, (2, 3, 4, 5))
    assert rows_saved(times=1) == 0


def test_a_model_of_the_users_own(predictor, rows_saved):
    class Mine(type(predictor._model)):
        pass

    predictor._model.__class__ = Mine
    assert rows_saved(times=1) == 0


def test_somebody_looks_inside(predictor):
    def inside():
        with predictor.capture_model_internals(r".*dense$") as internals:
            outputs(predictor)
        return [layer["output"] for layer in internals.values()]

    theirs = inside()
    skip_padding(predictor._model)
    assert inside() == theirs


def test_quantized_layers_look_at_all_rows(predictor):
    model = torch.quantization.quantize_dynamic(predictor._model, {torch.nn.Linear})
    predictor._model = model
    theirs = outputs(predictor)
    skip_padding(model)
    assert outputs(predictor) == theirs


def test_a_module_of_the_users_own_in_a_transformer(predictor, rows_saved):
    class Mine(torch.nn.Linear):
        pass

    embedder_of(predictor).transformer_model.encoder.layer[0].output.dense.__class__ = Mine
    assert rows_saved(times=1) == 0


def test_gradients(predictor, counts):
    """The way back was not tried."""
    skip_padding(predictor._model)
    batch = Batch([predictor._json_to_instance(item) for item in INPUTS[:40]])
    for instance in batch.instances:
        predictor._dataset_reader.apply_token_indexers(instance)
    batch.index_instances(predictor._model.vocab)
    predictor._model(**batch.as_tensor_dict())
    assert len(set(counts)) == 1


def test_masks_with_holes(predictor):
    skip_padding(predictor._model)
    tokens = torch.randint(8, (8, 20))
    mask = torch.arange(20).expand(8, 20) < 9
    mask[3, 0] = False
    given = {"tokens": {"token_ids": tokens, "mask": mask, "type_ids": tokens * 0}}
    with torch.no_grad():
        ours = predictor._model(given)["logits"]
        theirs = type(predictor._model).forward(predictor._model, given)["logits"]
    assert torch.equal(ours, theirs)


def test_the_transformer_is_used_by_somebody_else(predictor):
    transformer = embedder_of(predictor).transformer_model
    given = {
        "input_ids": torch.randint(8, (8, 20)),
        "attention_mask": (torch.arange(20) < torch.arange(2, 18, 2).unsqueeze(1)).float(),
    }
    theirs = transformer(**given).last_hidden_state
    skip_padding(predictor._model)
    assert torch.equal(transformer(**given).last_hidden_state, theirs)


@pytest.mark.parametrize("config, shape", [(BertConfig, {}), (DistilBertConfig, DISTILLED)])
def test_a_batch_with_an_empty_text(predictor, config, shape):
    """Some attentions make it NaN, and so does the product of its padding and zero."""
    new_transformer(predictor, config, **shape)
    predictor._model._seq2vec_encoder = BagOfEmbeddingsEncoder(8)
    predictor._model._feedforward = None
    tokens = torch.randint(8, (8, 20))
    mask = torch.arange(20) < torch.arange(8).unsqueeze(1)
    given = {"tokens": {"token_ids": tokens, "mask": mask, "type_ids": tokens * 0}}

    def logits():
        with torch.no_grad():
            return predictor._model(given)["logits"].numpy().tobytes()

    theirs = logits()
    skip_padding(predictor._model)
    assert logits() == theirs
