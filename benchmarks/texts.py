"""
Real English sentences from what every Python installation has: the comments and docstrings of the
standard library, and the licences of the installed packages.

Their lengths are as mixed as those of real input, from three words to a licence's hundred, and each
sentence comes with where it is from, which is what the benchmark's classifier learns to tell.
"""

import ast
import io
import random
import re
import sysconfig
import tokenize
from pathlib import Path
from typing import Dict, Iterator, List, Tuple

Sentence = Tuple[str, str]
"""The text and its kind."""

_NOT_PROSE = ("test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "turtledemo")
_MAX_WORDS = 150
_SEED = 2102


def collect(number: int) -> List[Sentence]:
    """
    Collects sentences, each once, in an order that is random but always the same.

    # Parameters

    number : `int`
        How many to return; a `RuntimeError` says so if there are not as many.
    """
    by_kind: Dict[str, Dict[str, None]] = {}
    for kind, paragraph in _paragraphs():
        for sentence in _sentences(paragraph):
            by_kind.setdefault(kind, {})[sentence] = None
    sentences = sorted(
        {text: kind for kind, texts in by_kind.items() for text in texts}.items(),
    )
    if len(sentences) < number:
        raise RuntimeError(f"only {len(sentences)} sentences in this Python installation")
    return random.Random(_SEED).sample(sentences, number)


def _paragraphs() -> Iterator[Tuple[str, str]]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(library.rglob("*.py")):
        if not set(path.relative_to(library).parts) & set(_NOT_PROSE):
            source = path.read_text(encoding="utf-8", errors="replace")
            yield from (("comment", text) for text in _comments(source))
            yield from (("docstring", text) for text in _docstrings(source))
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).glob("*.dist-info/**/*")):
        if re.match("(LICEN[CS]E|COPYING|NOTICE|AUTHORS)", path.name, re.I) and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            yield from (("licence", paragraph) for paragraph in re.split(r"\n\s*\n", text))


def _comments(source: str) -> Iterator[str]:
    """The comments of a file; those on lines that follow each other are one."""
    block: List[str] = []
    last = None
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type != tokenize.COMMENT:
                continue
            row, column = token.start
            if (row - 1, column) != last and block:
                yield " ".join(block)
                block = []
            last = (row, column)
            block.append(token.string.strip("#!: \t"))
    except (SyntaxError, tokenize.TokenError):
        pass
    yield " ".join(block)


def _docstrings(source: str) -> Iterator[str]:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            yield from re.split(r"\n\s*\n", ast.get_docstring(node) or "")


def _sentences(paragraph: str) -> Iterator[str]:
    text = re.sub(r"\s+", " ", paragraph).strip()
    for sentence in re.split(r"(?<=[.!?:;])\s+(?=[A-Z(\"'])", text):
        words = sentence.split()
        letters = sum(c.isalpha() or c == " " for c in sentence)
        # Prose, and not code that is commented out, a table, or a diagram.
        if 3 <= len(words) <= _MAX_WORDS and letters > 0.85 * len(sentence):
            yield sentence
