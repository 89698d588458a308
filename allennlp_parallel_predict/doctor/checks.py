"""
One function per known trouble of an installation. Each looks at the environment, and yields what it
finds. They are in the order in which to read what they find: causes before symptoms.
"""

import os
import platform
import re
from pathlib import Path
from typing import Callable, Iterator, List, NamedTuple, Optional

from allennlp_parallel_predict.doctor import executable_stack
from allennlp_parallel_predict.doctor.environment import Environment, Version, show_version
from allennlp_parallel_predict.doctor.remedies import CONSOLE_SCRIPT, find_remedy, install_allennlp


class Finding(NamedTuple):
    """What is wrong and why, and what to do about it, if possible as a command."""

    text: str
    remedy: str
    fix: Optional[Callable[[], object]] = None
    """Does it, where that can break nothing else."""
    is_problem: bool = True
    """Whether predictions fail because of it; else it is for some uses only."""


Findings = Iterator[Finding]


def check_python(environment: Environment) -> Findings:
    if not (3, 8) <= environment.python <= (3, 13):
        version = show_version(environment.python)
        yield Finding(f"Python {version} is not supported", "use Python 3.8 to 3.13")


def check_torch(environment: Environment) -> Findings:
    torch = environment.version("torch")
    wanted = '"torch>=2.6"' if environment.modern else '"torch>=1.10,<1.13"'
    if torch is None:
        yield Finding("torch is not installed", f"pip install {wanted}")
    elif environment.modern != (torch >= (2, 0)):
        versions = f"torch {show_version(torch)} is not the one for Python"
        yield Finding(f"{versions} {show_version(environment.python)}", f"pip install {wanted}")


def check_executable_stack(environment: Environment) -> Findings:
    libraries = list(executable_stack.find(environment.site_packages))
    if libraries:
        names = ", ".join(library.name for library in libraries)
        refused = (environment.glibc or (0,)) >= (2, 41)
        yield Finding(
            f"{names}: asks for an executable stack, which glibc 2.41 and later refuses "
            '("cannot enable executable stack as shared object requires")',
            f"{CONSOLE_SCRIPT} doctor --fix",
            lambda: executable_stack.clear_all(environment.site_packages),
            is_problem=refused,
        )


def check_numpy(environment: Environment) -> Findings:
    numpy, spacy = environment.version("numpy"), environment.version("spacy")
    if numpy is None:
        return
    if not environment.modern and numpy >= (1, 24):
        yield Finding(
            f"numpy {show_version(numpy)}: torch 1.12 and spaCy 3.3 crash with numpy 2, and 1.24 "
            "removed names that AllenNLP's time uses (np.bool)",
            'pip install "numpy<1.24"',
        )
    elif numpy >= (2, 0) and spacy is not None and spacy < (3, 8):
        yield Finding(
            f"spaCy {show_version(spacy)} does not go with numpy 2", 'pip install "spacy>=3.8,<3.9"'
        )


def check_setuptools(environment: Environment) -> Findings:
    setuptools = environment.version("setuptools")
    if environment.version("py-rouge") and (setuptools is None or setuptools >= (81,)):
        yield Finding(
            "py-rouge, which allennlp-models needs, uses pkg_resources: gone from setuptools 81",
            'pip install "setuptools<81"',
            lambda: environment.pip_install("setuptools<81"),
        )


def check_pydantic(environment: Environment) -> Findings:
    pydantic, spacy = environment.version("pydantic"), environment.version("spacy")
    typing_extensions = environment.version("typing_extensions") or (0,)
    if spacy is None or spacy >= (3, 7) or pydantic is None:
        return
    if pydantic >= (1, 9):
        yield Finding("spaCy 3.3 needs pydantic 1.8", 'pip install "pydantic<1.9"')
    elif environment.python < (3, 10) and typing_extensions >= (4, 6):
        yield Finding(
            "typing_extensions 4.6 and later breaks pydantic 1.8 and so spaCy 3.3 "
            '("issubclass() arg 1 must be a class")',
            'pip install "typing_extensions<4.6"',
        )


def check_hugging_face(environment: Environment) -> Findings:
    transformers = environment.version("transformers") or (0,)
    hub = environment.version("huggingface_hub") or (0,)
    if transformers >= (5,) or hub >= (1,):
        yield Finding(
            "transformers 5 and huggingface_hub 1 removed what AllenNLP uses",
            'pip install "transformers>=4.56,<5" "huggingface_hub<1"',
        )


def check_allennlp(environment: Environment) -> Findings:
    if environment.version("allennlp") is None:
        if not environment.modern:
            yield Finding("AllenNLP is not installed", install_allennlp())
            return
        yield Finding(
            "AllenNLP is not installed: the libraries of today are not within its bounds",
            install_allennlp(),
            lambda: environment.pip_install("--no-deps", "allennlp==2.10.1"),
        )
    elif environment.version("allennlp-models") is None:
        yield Finding(
            "allennlp-models is not installed; many archives need it",
            f'pip install "{CONSOLE_SCRIPT}[models]"; {install_allennlp("allennlp-models")}',
            is_problem=False,
        )


def check_imports(environment: Environment) -> Findings:
    packages = ("torch", "spacy", "transformers", "allennlp", "allennlp_models")
    installed = [name for name in packages if environment.version(name.replace("_", "-"))]
    succeeded, output = environment.probe(_IMPORT_EACH.format(packages=installed))
    if not succeeded:
        package = (re.findall("(?m)^importing (.*)", output) or ["torch"])[-1]
        last = output.strip().splitlines()[-1]
        known = find_remedy(output)
        remedy = known.remedy if known else f"see what `python -c 'import {package}'` prints"
        yield Finding(f"import {package} fails: {last}", remedy)


_IMPORT_EACH = """
import importlib, sys
from allennlp_parallel_predict import compat
compat.install()
for package in {packages}:
    print("importing", package, file=sys.stderr, flush=True)
    importlib.import_module(package)
"""


def check_gpu(environment: Environment) -> Findings:
    answer = environment.ask(
        "import json, torch; there = torch.cuda.is_available(); print(json.dumps([list(map("
        "torch.cuda.get_device_capability, range(torch.cuda.device_count()))), "
        "torch.cuda.get_arch_list()] if there else None))"
    )
    for capability in answer[0] if answer else []:
        if not has_kernels((capability[0], capability[1]), answer[1]):
            yield Finding(
                f"torch has no kernels for a GPU of compute capability {show_version(capability)}; "
                f"it has {', '.join(answer[1])}",
                "install a build of torch for this GPU's CUDA; on Python 3.8 to 3.10 there is none "
                "for GPUs later than 2022",
            )


def has_kernels(capability: Version, architectures: List[str]) -> bool:
    """
    Whether code for `architectures` runs: binaries (sm_) on the same major version from their minor
    one on, and PTX (compute_) on all later ones.
    """
    for kind, _, number in (name.partition("_") for name in architectures):
        digits = "".join(character for character in number if character.isdigit())
        compiled = (int(digits[:-1] or 0), int(digits[-1:] or 0))
        if kind == "compute" and compiled <= capability:
            return True
        if kind == "sm" and compiled[0] == capability[0] and compiled[1] <= capability[1]:
            return True
    return False


def check_mkl(environment: Environment) -> Findings:
    torch = environment.version("torch") or (9,)
    cpuinfo = Path("/proc/cpuinfo")
    amd = cpuinfo.exists() and "AuthenticAMD" in cpuinfo.read_text()
    is_affected = amd and platform.machine() == "x86_64" and torch < (1, 13)
    if is_affected and os.environ.get("MKL_DEBUG_CPU_TYPE") != "5":
        yield Finding(
            "the MKL of torch 1.10 to 1.12 computes with SSE on this AMD processor: two to four "
            "times as slow as it could be",
            "use Python 3.11 or later with torch 2; or set MKL_DEBUG_CPU_TYPE=5, which changes the "
            "last digits of real numbers",
            is_problem=False,
        )


def check_spacy_model(environment: Environment) -> Findings:
    if environment.version("spacy") and environment.version("en_core_web_sm") is None:
        yield Finding(
            "the spaCy pipeline en_core_web_sm is not installed; the predictors for tagging, "
            "parsing, SRL and coreference use it",
            "python -m spacy download en_core_web_sm",
            is_problem=False,
        )


def check_nltk(environment: Environment) -> Findings:
    if environment.version("allennlp-models") is None or environment.version("nltk") is None:
        return
    if environment.ask("import nltk; nltk.data.find('tokenizers/punkt'); print(1)") is None:
        yield Finding(
            "whoever imports allennlp_models tries to download nltk's data, each time, which waits "
            "where there is no network",
            "python -m nltk.downloader punkt wordnet; or make an empty folder tokenizers/punkt in "
            "one that NLTK_DATA names",
            is_problem=False,
        )


def plugins_file() -> Path:
    return Path.home() / ".allennlp" / "plugins"


def check_plugin(environment: Environment) -> Findings:
    files = [Path(".allennlp_plugins"), plugins_file()]
    names = [line.strip() for file in files if file.exists() for line in file.open()]
    if "allennlp_parallel_predict" not in names:
        yield Finding(
            "neither ./.allennlp_plugins nor ~/.allennlp/plugins names allennlp_parallel_predict: "
            f"`allennlp parallel-predict` is not found (`{CONSOLE_SCRIPT}` needs neither)",
            f"{CONSOLE_SCRIPT} doctor --fix adds it to ~/.allennlp/plugins",
            register_plugin,
            is_problem=False,
        )


def register_plugin() -> None:
    file = plugins_file()
    file.parent.mkdir(exist_ok=True)
    before = file.read_text() if file.exists() else ""
    end = "" if not before or before.endswith("\n") else "\n"
    file.write_text(f"{before}{end}allennlp_parallel_predict\n")


CHECKS: List[Callable[[Environment], Findings]] = [
    check for name, check in list(globals().items()) if name.startswith("check_")
]
