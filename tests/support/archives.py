"""
Tiny AllenNLP archives, really trained, for the tests to predict with.

Each archive is a configuration here, trained for an epoch or two on the few sentences below: its
weights are arbitrary, but the code that runs is the real one. `build(names, folder)` makes those
that are missing. It imports torch and trains, so the tests run this file as a program and stay
clear of both:

    python tests/archives.py FOLDER NAME...
"""

import json
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Tuple

Config = Dict[str, Any]

# word/part of speech, with the names in brackets. One text, turned into every format below.
TEXT = [
    "[Mary/PROPN Smith/PROPN] sees/VERB the/DET old/ADJ dog/NOUN ./PUNCT",
    "The/DET dog/NOUN barked/VERB and/CCONJ the/DET cat/NOUN ran/VERB away/ADV ./PUNCT",
    "[Paris/PROPN] is/AUX a/DET big/ADJ city/NOUN ./PUNCT",
    "Nobody/PRON knows/VERB why/ADV [Tom/PROPN] left/VERB [New/PROPN York/PROPN] ./PUNCT",
    "He/PRON wrote/VERB a/DET long/ADJ letter/NOUN and/CCONJ she/PRON read/VERB it/PRON ./PUNCT",
    "Rain/NOUN fell/VERB ./PUNCT",
    "The/DET café/NOUN in/ADP [Zürich/PROPN] sells/VERB good/ADJ tea/NOUN ./PUNCT",
    "They/PRON want/VERB to/PART win/VERB the/DET game/NOUN in/ADP [Rome/PROPN] ./PUNCT",
]


def sentence(line: str) -> List[Tuple[str, str, str]]:
    """The (word, part of speech, IOB1 name tag) triples of one line of `TEXT`."""
    triples, inside = [], False
    for item in line.split():
        word, pos = item.strip("[]").split("/")
        inside = inside or item.startswith("[")
        triples.append((word, pos, "I-NAME" if inside else "O"))
        inside = inside and not item.endswith("]")
    return triples


SENTENCES = [sentence(line) for line in TEXT]


def write(path: Path, lines: Iterable[str]) -> str:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(path)


# The formats that the dataset readers want.


def sequence_tagging(folder: Path) -> str:
    rows = (" ".join(f"{word}###{pos}" for word, pos, _ in words) for words in SENTENCES)
    return write(folder / "tagging.txt", (row.replace(" ", "\t") for row in rows))


def sentences(folder: Path) -> str:
    return write(folder / "sentences.txt", (" ".join(w for w, _, _ in s) for s in SENTENCES))


def labelled_texts(folder: Path) -> str:
    texts = [" ".join(word for word, _, _ in words) for words in SENTENCES]
    rows = ({"text": text, "label": "long" if len(text) > 30 else "short"} for text in texts)
    return write(folder / "texts.jsonl", map(json.dumps, rows))


def reversed_words(folder: Path) -> str:
    rows = [[word for word, _, _ in words][:6] for words in SENTENCES]
    return write(folder / "pairs.tsv", (" ".join(r) + "\t" + " ".join(r[::-1]) for r in rows))


def conll2003(folder: Path) -> str:
    rows = ["\n".join(f"{word} {pos} O {ner}" for word, pos, ner in words) for words in SENTENCES]
    return write(folder / "conll2003.txt", (row + "\n" for row in rows))


def conllu(folder: Path) -> str:
    rows = []
    for words in SENTENCES:
        # Every word hangs on the one before it: wrong, but a tree.
        for i, (word, pos, _) in enumerate(words):
            rows.append("\t".join([str(i + 1), word, word, pos, pos, "_", str(i), "dep", "_", "_"]))
        rows.append("")
    return write(folder / "trees.conllu", rows)


def ontonotes(folder: Path) -> str:
    """One document: the word before a verb is its subject, and all names are one person."""
    rows = ["#begin document (bc/tiny/00/tiny_0000); part 000"]
    for words in SENTENCES:
        verbs = [i for i, (_, pos, _) in enumerate(words) if pos == "VERB"]
        for i, (word, pos, ner) in enumerate(words):
            tree = "*))" if i == len(words) - 1 else "(TOP(S*" if i == 0 else "*"
            verb = word if i in verbs else "-"
            roles = ["(V*)" if i == v else "(ARG0*)" if i == v - 1 else "*" for v in verbs]
            name = "(0)" if ner != "O" else "(1)" if pos == "PRON" else "-"
            columns = ["bc/tiny/00/tiny_0000", "0", str(i), word, pos, tree, verb, "01", "-"]
            rows.append("   ".join([*columns, "Speaker#1", "*", *roles, name]))
        rows.append("")
    (folder / "ontonotes").mkdir(exist_ok=True)
    return write(folder / "ontonotes" / "tiny.gold_conll", [*rows, "#end document"])


def squad(folder: Path) -> str:
    paragraphs = []
    for number, words in enumerate(SENTENCES):
        passage = " ".join(word for word, _, _ in words)
        answer = {"answer_start": 0, "text": words[0][0]}
        question = {"question": f"What of {words[1][0]}?", "id": str(number), "answers": [answer]}
        paragraphs.append({"context": passage, "qas": [question]})
    document = {"data": [{"title": "tiny", "paragraphs": paragraphs}]}
    return write(folder / "squad.json", [json.dumps(document)])


# Pretrained parts that cannot be downloaded: made here, named by their path.


def spacy_model(folder: Path) -> str:
    """An English spaCy pipeline of parts of speech and sentences, in place of en_core_web_sm."""
    path = folder / "spacy"
    if not path.is_dir():
        import spacy
        from spacy.training import Example

        spacy.util.fix_random_seed(0)
        pipeline = spacy.blank("en")
        pipeline.add_pipe("sentencizer")
        pipeline.add_pipe("morphologizer")
        examples = []
        for words in SENTENCES:
            tokens = {"words": [word for word, _, _ in words], "pos": [pos for _, pos, _ in words]}
            text = pipeline.make_doc(" ".join(tokens["words"]))
            examples.append(Example.from_dict(text, tokens))
        pipeline.initialize(lambda: examples)
        for _ in range(20):
            pipeline.update(examples)
        pipeline.to_disk(path)
    return str(path)


def transformer(folder: Path) -> str:
    """A BERT with four hidden units a head that has never seen any text."""
    path = folder / "bert"
    if not path.is_dir():
        import torch
        from transformers import BertConfig, BertModel, BertTokenizerFast

        model_class: Any = BertModel
        tokenizer_class: Any = BertTokenizerFast

        path.mkdir()
        letters = sorted(set("".join(TEXT).lower()) - {" "})
        pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "##ing", "##ed"]
        vocabulary = pieces + letters + ["##" + letter for letter in letters]
        tokenizer_class(write(path / "vocab.txt", vocabulary)).save_pretrained(path)
        torch.manual_seed(0)
        shape = dict(
            hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
        )
        model_class(BertConfig(vocab_size=len(vocabulary), **shape)).save_pretrained(path)
    return str(path)


# The configurations.


def embedder(dim: int, **more: Any) -> Config:
    return {"token_embedders": {"tokens": {"type": "embedding", "embedding_dim": dim, **more}}}


def lstm(size: int, hidden: int = 6, **more: Any) -> Config:
    return {"type": "lstm", "input_size": size, "hidden_size": hidden, **more}


def experiment(reader: Config, data: Any, model: Config, **more: Any) -> Config:
    trainer = {"optimizer": {"type": "adam", "lr": 0.02}, "num_epochs": 2, "cuda_device": -1}
    loader = {"batch_size": 4}
    parts = {"dataset_reader": reader, "train_data_path": data, "model": model, "trainer": trainer}
    return {"data_loader": loader, **parts, **more}


CHARACTERS = {"type": "character_encoding", "embedding": {"embedding_dim": 4}}
CHARACTERS["encoder"] = {
    "type": "cnn",
    "embedding_dim": 4,
    "num_filters": 4,
    "ngram_filter_sizes": [3],
}
WITH_CHARACTERS = {
    "token_embedders": {
        "tokens": {"type": "embedding", "embedding_dim": 4},
        "token_characters": dict(CHARACTERS, embedding={"embedding_dim": 4, "num_embeddings": 262}),
    }
}
CHARACTER_INDEXERS = {
    "tokens": {"type": "single_id"},
    "token_characters": {
        "type": "characters",
        "character_tokenizer": {"byte_encoding": "utf-8"},
        "min_padding_length": 3,
    },
}


def text_classifier(folder: Path) -> Config:
    reader = {"type": "text_classification_json", "tokenizer": "whitespace"}
    encoder = {"type": "bag_of_embeddings", "embedding_dim": 6, "averaged": True}
    model = {
        "type": "basic_classifier",
        "text_field_embedder": embedder(6),
        "seq2vec_encoder": encoder,
    }
    return experiment(reader, labelled_texts(folder), model)


def transformer_classifier(folder: Path) -> Config:
    bert = {"type": "pretrained_transformer", "model_name": transformer(folder)}
    reader = {
        "type": "text_classification_json",
        "tokenizer": bert,
        "token_indexers": {"tokens": bert},
    }
    model = {
        "type": "basic_classifier",
        "namespace": "tags",  # where a pretrained vocabulary goes
        "text_field_embedder": {"token_embedders": {"tokens": bert}},
        "seq2vec_encoder": {"type": "bert_pooler", "pretrained_model": bert["model_name"]},
    }
    return experiment(reader, labelled_texts(folder), model)


def tagger(folder: Path, **encoder: Any) -> Config:
    model = {
        "type": "simple_tagger",
        "text_field_embedder": embedder(6),
        "encoder": lstm(6, **encoder),
    }
    return experiment({"type": "sequence_tagging"}, sequence_tagging(folder), model)


def stateful_tagger(folder: Path) -> Config:
    """Its LSTM goes on from where the batch before left it, as ELMo's does."""
    return tagger(folder, stateful=True)


def writing_tagger(folder: Path) -> Config:
    """Writes to a buffer whenever it predicts: `tests/fixtures/writing_model.py`."""
    config = tagger(folder)
    config["model"]["type"] = "writing_tagger"
    return config


def crf_tagger(folder: Path) -> Config:
    reader = {"type": "conll2003", "tag_label": "ner", "token_indexers": CHARACTER_INDEXERS}
    model = {
        "type": "crf_tagger",
        "label_encoding": "IOB1",
        "constrain_crf_decoding": True,
        "text_field_embedder": WITH_CHARACTERS,
        "encoder": lstm(8, bidirectional=True),
    }
    return experiment(reader, conll2003(folder), model)


def seq2seq(folder: Path, **beam_search: Any) -> Config:
    reader = {
        "type": "seq2seq",
        "source_tokenizer": "whitespace",
        "target_tokenizer": "whitespace",
        "source_token_indexers": {"tokens": {"namespace": "source_tokens"}},
        "target_token_indexers": {"tokens": {"namespace": "target_tokens"}},
    }
    model = {
        "type": "simple_seq2seq",
        "source_embedder": embedder(6, vocab_namespace="source_tokens"),
        "encoder": lstm(6),
        "attention": "dot_product",
        "beam_search": {"max_steps": 9, "beam_size": 3, **beam_search},
        "target_embedding_dim": 6,
        "target_namespace": "target_tokens",
    }
    return experiment(reader, reversed_words(folder), model)


def sampling_seq2seq(folder: Path) -> Config:
    """What it says hangs on random numbers."""
    return seq2seq(folder, sampler="multinomial")


def copynet(folder: Path) -> Config:
    reader = {
        "type": "copynet_seq2seq",
        "target_namespace": "target_tokens",
        "source_tokenizer": "whitespace",
        "target_tokenizer": "whitespace",
        "source_token_indexers": {"tokens": {"type": "single_id", "namespace": "source_tokens"}},
    }
    model = {
        "type": "copynet_seq2seq",
        "source_embedder": embedder(6, vocab_namespace="source_tokens"),
        "encoder": lstm(6),
        "attention": {"type": "bilinear", "vector_dim": 6, "matrix_dim": 6},
        "target_embedding_dim": 6,
        "beam_search": {"max_steps": 9, "beam_size": 3},
    }
    return experiment(reader, reversed_words(folder), model)


def srl(folder: Path) -> Config:
    model = {
        "type": "srl",
        "text_field_embedder": embedder(6),
        "encoder": lstm(8, bidirectional=True),
        "binary_feature_dim": 2,
        "ignore_span_metric": True,  # it would run a perl script
    }
    data = str(Path(ontonotes(folder)).parent)
    return experiment({"type": "srl"}, data, model)


def coref(folder: Path) -> Config:
    reader = {"type": "coref", "token_indexers": CHARACTER_INDEXERS, "max_span_width": 3}
    layer = {"num_layers": 1, "activations": "relu"}
    model = {
        "type": "coref",
        "text_field_embedder": WITH_CHARACTERS,
        "context_layer": lstm(8, bidirectional=True),
        # Two ends of a span, its width, and its words: 2 * 12 + 2 + 8; a pair: two of these, ...
        "mention_feedforward": {"input_dim": 34, "hidden_dims": 6, **layer},
        "antecedent_feedforward": {"input_dim": 104, "hidden_dims": 6, **layer},
        "feature_size": 2,
        "max_span_width": 3,
        "spans_per_word": 0.8,
        "max_antecedents": 8,
    }
    return experiment(reader, ontonotes(folder), model)


def bidaf(folder: Path) -> Config:
    tokenizer = {"type": "spacy", "language": spacy_model(folder)}
    reader = {"type": "squad", "tokenizer": tokenizer, "token_indexers": CHARACTER_INDEXERS}
    model = {
        "type": "bidaf",
        "text_field_embedder": WITH_CHARACTERS,
        "num_highway_layers": 1,
        "phrase_layer": lstm(8),
        "matrix_attention": {
            "type": "linear",
            "combination": "x,y,x*y",
            "tensor_1_dim": 6,
            "tensor_2_dim": 6,
        },
        "modeling_layer": lstm(24),
        "span_end_encoder": lstm(42),
    }
    return experiment(reader, squad(folder), model)


def transformer_qa(folder: Path) -> Config:
    name = {"transformer_model_name": transformer(folder)}
    # Long passages are cut into pieces, so that a question has several instances.
    shape = {"length_limit": 40, "stride": 16, "max_query_length": 16}
    reader = {"type": "transformer_squad", **name, **shape}
    return experiment(reader, squad(folder), {"type": "transformer_qa", **name})


def biaffine_parser(folder: Path) -> Config:
    model = {
        "type": "biaffine_parser",
        "text_field_embedder": embedder(6),
        "encoder": lstm(6),
        "arc_representation_dim": 4,
        "tag_representation_dim": 4,
    }
    return experiment({"type": "universal_dependencies"}, conllu(folder), model)


def masked_lm(folder: Path) -> Config:
    head = {"type": "linear", "input_dim": 6, "vocab_namespace": "tokens"}
    model = {
        "type": "masked_language_model",
        "text_field_embedder": embedder(6),
        "language_model_head": head,
        "target_namespace": "tokens",
    }
    vocabulary = {"tokens_to_add": {"tokens": ["[MASK]"]}}
    reader = {"type": "masked_language_modeling"}
    return experiment(reader, sentences(folder), model, vocabulary=vocabulary)


def next_token_lm(folder: Path) -> Config:
    head = {"type": "linear", "input_dim": 6, "vocab_namespace": "tokens"}
    model = {
        "type": "next_token_lm",
        "text_field_embedder": embedder(6),
        "language_model_head": head,
        "target_namespace": "tokens",
    }
    return experiment({"type": "next_token_lm"}, sentences(folder), model)


def language_model(folder: Path) -> Config:
    reader: Config = {"type": "simple_language_modeling", "tokenizer": "whitespace"}
    reader.update(start_tokens=["<S>"], end_tokens=["</S>"])
    model = {
        "type": "language_model",
        "text_field_embedder": embedder(6),
        "contextualizer": lstm(6, bidirectional=True),
        "bidirectional": True,
    }
    return experiment(reader, sentences(folder), model)


def multitask(folder: Path) -> Config:
    bert = {"type": "pretrained_transformer", "model_name": transformer(folder)}
    indexer = {"tokens": dict(bert, namespace="tags")}
    reader = {"type": "text_classification_json", "tokenizer": bert, "token_indexers": indexer}
    encoder = {"type": "cls_pooler", "embedding_dim": 8}
    tasks = ["first", "second"]
    model = {
        "type": "multitask",
        "backbone": bert,
        "heads": {task: {"type": "classifier", "seq2vec_encoder": encoder} for task in tasks},
        "arg_name_mapping": {"backbone": {"tokens": "text"}},
    }
    return experiment(
        {"type": "multitask", "readers": {task: reader for task in tasks}},
        {task: labelled_texts(folder) for task in tasks},
        model,
        data_loader={"type": "multitask", "scheduler": {"batch_size": 4}},
    )


_RECIPES: List[Any] = [
    text_classifier,
    transformer_classifier,
    tagger,
    stateful_tagger,
    writing_tagger,
    crf_tagger,
    seq2seq,
    sampling_seq2seq,
    copynet,
    srl,
    coref,
    bidaf,
    transformer_qa,
    biaffine_parser,
    masked_lm,
    next_token_lm,
    language_model,
    multitask,
]
RECIPES: Dict[str, Callable[[Path], Config]] = {recipe.__name__: recipe for recipe in _RECIPES}


def build(names: Iterable[str], folder: Path) -> None:
    """Train those of `names` that `folder` does not hold yet as `NAME.tar.gz`."""
    import torch
    from allennlp.commands.train import train_model
    from allennlp.common import Params
    from allennlp.common.plugins import import_plugins

    torch.set_num_threads(1)
    import_plugins()
    from tests.fixtures import writing_model  # noqa: F401  (registers its model)

    folder.mkdir(parents=True, exist_ok=True)
    spacy_model(folder)
    for name in names:
        archive, work = folder / f"{name}.tar.gz", folder / f"{name}.{os.getpid()}"
        if archive.exists():
            continue
        random.seed(0)
        # AllenNLP eats a configuration up while reading it: no two parts may be one dictionary.
        config = json.loads(json.dumps(RECIPES[name](folder)))
        train_model(Params(config), str(work))
        os.replace(work / "model.tar.gz", archive)  # at once: another test run may look for it
        shutil.rmtree(work)


if __name__ == "__main__":
    # Some language model readers read files only for programs with "test" in their names.
    sys.argv[0] = "test"
    build(sys.argv[2:] or RECIPES, Path(sys.argv[1]).resolve())
