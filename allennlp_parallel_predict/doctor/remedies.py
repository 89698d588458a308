"""What error messages of an installation mean, and what to do about each."""

import re
import sys
from typing import List, NamedTuple, Optional, Pattern

CONSOLE_SCRIPT = "allennlp-parallel-predict"


class Remedy(NamedTuple):
    pattern: Pattern[str]
    cause: str
    remedy: str


def install_allennlp(package: str = "allennlp") -> str:
    """The command that installs a package of AllenNLP's on this Python."""
    if sys.version_info >= (3, 11):
        return f"pip install --no-deps {package}==2.10.1"
    return f"pip install {package}==2.10.1"


def _remedy(pattern: str, cause: str, remedy: str) -> Remedy:
    return Remedy(re.compile(pattern), cause, remedy)


# The first that matches counts.
REMEDIES: List[Remedy] = [
    _remedy(
        "cannot enable executable stack",
        "glibc 2.41 and later refuses to load libraries that ask for an executable stack, as torch "
        "1.12 does by mistake",
        f"{CONSOLE_SCRIPT} doctor --fix",
    ),
    _remedy(
        "No module named '?allennlp_models",
        "allennlp-models is not installed",
        install_allennlp("allennlp-models"),
    ),
    _remedy(
        r"No module named '?allennlp'?(\.|$|\n)",
        "AllenNLP is not installed; on Python 3.11 and later it has to be installed by itself, as "
        "it forbids the libraries that run there",
        install_allennlp(),
    ),
    _remedy(
        "No module named '?pkg_resources",
        "py-rouge, which allennlp-models needs, uses pkg_resources, gone from setuptools 81",
        'pip install "setuptools<81"',
    ),
    _remedy(
        r"multiarray failed to import|compiled using NumPy 1\.x|numpy\.dtype size changed"
        r"|_ARRAY_API not found|Numpy is not available|module 'numpy' has no attribute",
        "this numpy does not go with the other libraries",
        'pip install "numpy<1.24" on Python 3.8 to 3.10; on later ones, install spaCy 3.8 or later '
        "and torch 2.6 or later",
    ),
    _remedy(
        r"issubclass\(\) arg 1 must be a class",
        "this typing_extensions breaks the pydantic 1.8 of spaCy 3.3",
        'pip install "typing_extensions<4.6"',
    ),
    _remedy(
        "cannot import name '(HfFolder|Repository)'",
        "huggingface_hub 1.0 removed what AllenNLP imports",
        'pip install "huggingface_hub<1" "transformers<5"',
    ),
    _remedy(
        "torchvision|has no attribute '?AdamW|cannot import name 'AdamW'"
        "|add_special_tokens conflicts with the method|Unexpected key.*position_ids",
        "AllenNLP was imported before it was adapted to the libraries of today",
        f"run {CONSOLE_SCRIPT} instead of allennlp (`{CONSOLE_SCRIPT} predict ...`, for example), "
        "or import allennlp_parallel_predict before allennlp",
    ),
    _remedy(
        r"Can't find model 'en_core_web_\w+'",
        "the spaCy pipeline that the predictor uses is not installed",
        "python -m spacy download en_core_web_sm",
    ),
    _remedy(
        "no kernel image is available|not compatible with the current PyTorch installation",
        "this build of torch has no kernels for this GPU",
        "install a build of torch for this GPU's CUDA; torch 1.12, the newest on Python 3.8 to "
        "3.10, knows GPUs up to 2022",
    ),
    _remedy(
        "invalid choice: 'parallel-(predict|tune|compare)'",
        "AllenNLP does not find this plugin",
        f"run {CONSOLE_SCRIPT} instead of allennlp, or `{CONSOLE_SCRIPT} doctor --fix`",
    ),
    _remedy(
        "No module named '?torch'?",
        "torch is not installed",
        "pip install torch" if sys.version_info >= (3, 11) else 'pip install "torch<1.13"',
    ),
]


def find_remedy(message: str) -> Optional[Remedy]:
    return next((each for each in REMEDIES if each.pattern.search(message)), None)


def explain_import_error(error: BaseException) -> Optional[str]:
    """The cause of an error, usually of an import, and the remedy; `None` if it is not known."""
    remedy = find_remedy(f"{type(error).__name__}: {error}")
    if remedy is None:
        return None
    return f"{error}\n{remedy.cause[0].upper()}{remedy.cause[1:]}. Remedy: {remedy.remedy}"
