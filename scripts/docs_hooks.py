"""Hooks of mkdocs: the README is the start page, and links that leave docs/ become plain text."""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?!benchmarks/|why)[^)]*\)")
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#|docs/)[^)]*\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    readme = _LINK.sub(r"\1", (ROOT / "README.md").read_text()).replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=readme))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    return _OUTSIDE.sub(r"\1", markdown)
