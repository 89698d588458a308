"""Several inputs: which files a pattern names, where their outputs go, and what can be checked."""

import dataclasses
import glob
import os
from typing import Iterable, List
from urllib.parse import urlparse

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.data.files import check_files, writing
from allennlp_parallel_predict.data.formats import without_compression
from allennlp_parallel_predict.data.output_formats import GZ, LINES, PARQUET, ZST
from allennlp_parallel_predict.data.sources import reads_once
from allennlp_parallel_predict.pipeline.archive_check import check_archive
from allennlp_parallel_predict.pipeline.config import RunConfig

_FORMATS = (".jsonl", ".json", ".ndjson", ".txt", ".csv", ".tsv", ".parquet")
_SUFFIXES = {GZ: ".jsonl.gz", ZST: ".jsonl.zst", PARQUET: ".parquet"}
"""Of outputs, by their format."""


def expand_patterns(names: Iterable[str]) -> List[str]:
    """Puts the files that match a pattern such as `part-*.jsonl` in its place, sorted by name."""
    found: List[str] = []
    for name in names:
        is_pattern = glob.has_magic(name) and "://" not in name and not os.path.lexists(name)
        matches = sorted(glob.glob(name, recursive=True)) if is_pattern else [name]
        if not matches:
            raise SettingsError(f"no file matches the input {name}")
        found += matches
    return found


def outputs_of(config: RunConfig) -> List[RunConfig]:
    """The runs of which each has one of the outputs: several with `--output-dir`."""
    if config.output_dir is None:
        return [config]
    suffix = _SUFFIXES.get(config.output_format or LINES, ".jsonl")
    runs = []
    for name in dict.fromkeys(config.input_files):
        stem, errors = _stem(name), config.errors_file
        if errors is not None:
            errors = os.path.join(os.path.dirname(errors), f"{stem}.{os.path.basename(errors)}")
        output = os.path.join(config.output_dir, stem + suffix)
        run = dataclasses.replace(config, input_file=name, output_file=output, errors_file=errors)
        runs.append(dataclasses.replace(run, more_inputs=[], output_dir=None))
    return runs


def _stem(input_file: str) -> str:
    """`"part-1"` for `"in/part-1.jsonl.gz"`: without suffixes of compression and format."""
    name = os.path.basename(urlparse(input_file).path if "://" in input_file else input_file)
    name = without_compression(name)
    root, suffix = os.path.splitext(name)
    return root if suffix in _FORMATS else name


def check_run(config: RunConfig) -> None:
    """Finds what can be found before the archive is loaded, which may take minutes."""
    config.check_flags()
    _check_several(config)
    outputs, written, read = outputs_of(config), {}, {}
    for output in outputs:
        output.check_what_is_read_twice()
        of = f" of {output.input_file}" if len(outputs) > 1 else ""
        written.update(output.files_written(of))
        read.update(output.files_read(of))
    check_files(written, read)
    check_archive(config.archive_file, config.predictor, config.overrides)
    for output in outputs:
        for name in output.input_files:
            output.check_input(name)


def _check_several(config: RunConfig) -> None:
    if config.output_dir is None and not config.more_inputs:
        return
    if config.output_dir is not None and config.output_file:
        raise SettingsError("give --output-file or --output-dir, not both")
    if config.retry is not None:
        raise SettingsError("--retry is for one input and its --output-file")
    if config.writes_no_file:
        raise SettingsError(
            f"there are {len(config.input_files)} inputs, such as {config.more_inputs[0]}: give "
            "--output-dir for an output of each, or --output-file for one of them all"
        )
    for name in filter(reads_once, config.input_files):
        raise SettingsError(f"several inputs, and those for --output-dir, must be files: {name}")
    if config.output_dir is None and config.shard is not None:
        raise SettingsError("--shard with several inputs needs an --output-dir")
    if config.output_dir is not None:
        with writing(config.output_dir):
            os.makedirs(config.output_dir, exist_ok=True)
