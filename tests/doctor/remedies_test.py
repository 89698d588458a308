import pytest

from allennlp_parallel_predict.doctor import explain_import_error
from allennlp_parallel_predict.doctor.remedies import REMEDIES

# As they are seen, and a word of the remedy.
MESSAGES = [
    (
        "ImportError: libtorch_cpu.so: cannot enable executable stack as shared object requires: "
        "Invalid argument",
        "doctor --fix",
    ),
    ("No module named 'allennlp'", "allennlp==2.10.1"),
    ("No module named 'allennlp.commands'", "allennlp==2.10.1"),
    ("No module named 'allennlp_models'", "allennlp-models==2.10.1"),
    ("No module named 'pkg_resources'", "setuptools<81"),
    ("No module named 'torch'", "install"),
    ("No module named 'torchvision'", "allennlp-parallel-predict predict"),
    ("operator torchvision::nms does not exist", "allennlp-parallel-predict predict"),
    ("module transformers has no attribute AdamW", "import allennlp_parallel_predict before"),
    ("cannot import name 'HfFolder' from 'huggingface_hub'", "huggingface_hub<1"),
    ("numpy.core.multiarray failed to import", "numpy<1.24"),
    ("module 'numpy' has no attribute 'bool'.", "numpy<1.24"),
    ("issubclass() arg 1 must be a class", "typing_extensions<4.6"),
    ("[E050] Can't find model 'en_core_web_sm'. It doesn't seem to be", "spacy download"),
    ("CUDA error: no kernel image is available for execution on the device", "CUDA"),
    ("argument command: invalid choice: 'parallel-predict' (choose from", "doctor --fix"),
]


@pytest.mark.parametrize("message, word", MESSAGES)
def test_names_the_remedy(message: str, word: str) -> None:
    explained = explain_import_error(ImportError(message))
    assert explained is not None and message in explained
    assert word in explained.rpartition("Remedy: ")[2]


def test_every_remedy_has_its_message() -> None:
    for remedy in REMEDIES:
        assert any(remedy.pattern.search(message) for message, _ in MESSAGES), remedy.pattern


def test_says_nothing_of_other_errors() -> None:
    assert explain_import_error(KeyError("allennlp_model")) is None
    assert explain_import_error(ImportError("No module named 'allennlp_parallel'")) is None
