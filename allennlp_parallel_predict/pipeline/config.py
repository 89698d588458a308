"""What one run of the command was asked for."""

import os
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional

from allennlp_parallel_predict.common.errors import (
    ResumeError,
    SettingsError,
    check_at_least,
    user_error_context,
)
from allennlp_parallel_predict.common.messages import JoinOptions
from allennlp_parallel_predict.data.columns import parse_map
from allennlp_parallel_predict.data.files import OutputFile, is_regular
from allennlp_parallel_predict.data.formats import CSV, PARQUET, TSV, Format, open_source
from allennlp_parallel_predict.data.output_formats import output_class, output_format
from allennlp_parallel_predict.data.parquet import is_parquet
from allennlp_parallel_predict.data.parquet_output import lines_file
from allennlp_parallel_predict.data.sharding import Shard
from allennlp_parallel_predict.data.sources import STDIN, reads_once
from allennlp_parallel_predict.pipeline.checkpoint import Identity
from allennlp_parallel_predict.settings import Settings


@dataclass(frozen=True)
class RunConfig:
    """
    The flags of a run, under the names that they have there. Those of `allennlp predict` mean the
    same; the others are described by `allennlp parallel-predict --help`.
    """

    archive_file: str
    input_file: str
    output_file: Optional[str] = None
    errors_file: Optional[str] = None
    weights_file: Optional[str] = None
    predictor: Optional[str] = None
    predictor_args: str = ""
    overrides: str = ""
    use_dataset_reader: bool = False
    dataset_reader_choice: str = "validation"
    multitask_head: Optional[str] = None
    include_package: List[str] = field(default_factory=list)
    silent: bool = False
    input_format: Optional[str] = None
    text_field: str = "sentence"
    fields: Optional[str] = None
    map: Optional[str] = None
    keep_input: bool = False
    id_field: Optional[str] = None
    output_fields: Optional[str] = None
    output_format: Optional[str] = None
    deduplicate: bool = False
    limit: Optional[int] = None
    shard: Optional[str] = None
    dry_run: bool = False
    resume: bool = False
    retry: Optional[str] = None
    overwrite: bool = False
    summary: Optional[str] = None
    metrics: Optional[str] = None
    more_inputs: List[str] = field(default_factory=list)
    output_dir: Optional[str] = None
    quiet: bool = False
    profile: Optional[str] = None
    profile_trace: Optional[str] = None
    profile_plot: Optional[str] = None
    parallel_config: Optional[str] = None

    @property
    def input_files(self) -> List[str]:
        return [self.input_file, *self.more_inputs]

    @property
    def writes_no_file(self) -> bool:
        return not self.output_file and not self.output_dir

    @property
    def writes_nothing(self) -> bool:
        return self.silent and self.writes_no_file

    @property
    def output_class(self) -> Callable[[str], OutputFile]:
        """What opens the output file."""
        return output_class(self._output_format)

    @property
    def _output_format(self) -> str:
        return output_format(self.output_format, self.output_file)

    def format(self, by_name: str) -> Format:
        """The format of the input, which is `by_name` if none is given."""
        fields = self.fields.split(",") if self.fields else None
        columns = parse_map(self.map) if self.map is not None else None
        return Format(self.input_format or by_name, self.text_field, fields, columns)

    @property
    def join(self) -> Optional[JoinOptions]:
        """How outputs are joined with inputs; `None` if they are not."""
        if not self.keep_input and self.id_field is None and self.output_fields is None:
            return None
        fields = None if self.output_fields is None else self.output_fields.split(",")
        return JoinOptions(self.keep_input, self.id_field, fields)

    def check_flags(self) -> None:
        """Whether the flags go together."""
        if self.resume and self.overwrite:
            raise SettingsError("give --resume or --overwrite, not both")
        if self.output_format is not None and self.writes_no_file:
            raise SettingsError("--output-format needs an --output-file")
        self.output_class  # needs a library, perhaps
        if self._output_format == PARQUET and not is_regular(str(self.output_file)):
            raise SettingsError("--output-format parquet needs an --output-file that is a file")
        check_at_least(1, "--", limit=self.limit)
        if self.use_dataset_reader and (self.keep_input or self.id_field is not None):
            raise SettingsError(
                "--keep-input and --id-field need inputs that the predictor reads as JSON, which "
                "those of --use-dataset-reader are not"
            )
        given = {
            "--input-format": self.input_format is not None,
            "--map": self.map is not None,
            "--deduplicate": self.deduplicate,
        }
        for flag, is_given in given.items():
            if self.use_dataset_reader and is_given:
                raise SettingsError(f"give {flag} or --use-dataset-reader, not both")
        if self.fields is not None and self.input_format not in (CSV, TSV):
            raise SettingsError("--fields needs --input-format csv or tsv")
        for flag, names in (("--output-fields", self.output_fields), ("--fields", self.fields)):
            if names is not None and not all(names.split(",")):
                raise SettingsError(
                    f"{flag} must be names with commas between them, but it is {names!r}"
                )

    def check_what_is_read_twice(self) -> None:
        """Whether the input can be read as often as the flags need."""
        if self.dry_run:
            self._check_dry_run()
        if self.retry is not None:
            self._check_retry(self.retry)
        if self.shard is not None:
            Shard.parse(self.shard)
            if reads_once(self.input_file):
                raise SettingsError(
                    "--shard needs an input file that can be read twice, as it counts the inputs "
                    f"first, and {self._input} cannot"
                )
        if self.resume and not (self.output_file and is_regular(self.output_file)):
            raise ResumeError("--resume needs an --output-file that is a file")
        if self.resume and reads_once(self.input_file):
            raise ResumeError(
                "--resume needs an input that is a file: what an interrupted run has read from "
                f"{self._input} is gone"
            )

    def _check_dry_run(self) -> None:
        if reads_once(self.input_file):
            raise SettingsError(
                "--dry-run needs an input that is a file: what it would read of "
                f"{self._input} would be missing from the run"
            )
        for flag in ("profile", "profile_trace", "profile_plot"):
            if getattr(self, flag) is not None:
                raise SettingsError(f"give --dry-run or --{flag.replace('_', '-')}, not both")

    def _check_retry(self, errors_file: str) -> None:
        output = self.output_file
        if output is None or not os.path.isfile(output) or reads_once(self.input_file):
            raise ResumeError(
                "--retry needs the --output-file and the input file of the run whose failures are "
                "to be predicted again"
            )
        for flag in ("resume", "overwrite", "dry_run", "shard", "errors_file"):
            if getattr(self, flag):
                raise SettingsError(f"give --retry or --{flag.replace('_', '-')}, not both")
        if self._output_format == PARQUET:
            raise SettingsError("--retry needs an output of lines, not Parquet")
        with user_error_context("cannot read the file of --retry", OSError), open(errors_file):
            pass

    @property
    def _input(self) -> str:
        return "the standard input" if self.input_file == STDIN else self.input_file

    def check_input(self, input_file: str) -> None:
        """Whether an input can be read."""
        if self.use_dataset_reader:
            return
        if reads_once(input_file):
            if self.input_format == PARQUET:
                open_source(input_file, self.format(PARQUET))
            return
        download = f"cannot download {input_file} (for credentials see docs/files.md)"
        try:
            with user_error_context(download, Exception):
                begins_as_parquet = is_parquet(input_file)
        except OSError:
            is_table = self._output_format == PARQUET
            if self.output_file and is_regular(self.output_file) and not self.dry_run | is_table:
                # As after `predict`, the output exists; unlike there, its former content stays.
                open(self.output_file, "a").close()
            raise
        name = self.input_format or (PARQUET if begins_as_parquet else None)
        if name is not None:
            next(iter(open_source(input_file, self.format(name))), None)

    def files_written(self, of: str = "") -> Dict[str, str]:
        """Those of the run, or of one of its inputs, by names for messages."""
        output, is_table = self.output_file, self._output_format == PARQUET
        has_checkpoint = output is not None and is_regular(output)
        files = {
            f"--output-file{of}": output,
            f"the lines of --output-file{of}": lines_file(output) if output and is_table else None,
            f"--errors-file{of}": self.errors_file,
            f"the checkpoint{of}": f"{output}.checkpoint" if has_checkpoint else None,
            f"the temporary checkpoint{of}": f"{output}.checkpoint.tmp" if has_checkpoint else None,
            "--retry": self.retry,
            "--summary": self.summary,
            "--profile": self.profile,
            "--profile-trace": self.profile_trace,
            "--profile-plot": self.profile_plot,
        }
        return {name: path for name, path in files.items() if path}

    def files_read(self, of: str = "") -> Dict[str, str]:
        files = {
            **{f"the input {name}": name for name in self.more_inputs},
            f"the input {self.input_file}" if of else "the input": self.input_file,
            "the archive": self.archive_file,
            "--weights-file": self.weights_file,
            "--parallel-config": self.parallel_config,
        }
        return {name: path for name, path in files.items() if path}

    def identity(self, settings: Settings) -> Identity:
        """What the output depends on."""
        flags = (
            "predictor",
            "predictor_args",
            "overrides",
            "use_dataset_reader",
            "dataset_reader_choice",
            "multitask_head",
            "include_package",
            "errors_file",
            "input_format",
            "text_field",
            "fields",
            "map",
            "keep_input",
            "id_field",
            "output_fields",
            "output_format",
            "deduplicate",
            "limit",
            "shard",
        )
        files = {
            **{f"input file {n}": name for n, name in enumerate(self.more_inputs, start=2)},
            "input file": self.input_file,
            "archive": self.archive_file,
            "weights file": self.weights_file,
        }
        return Identity(
            {name: path for name, path in files.items() if path},
            {
                "on_error": settings.on_error,
                "number of threads per worker": settings.executor.threads(),
                "exact": settings.is_exact,
                "precision": settings.precision,
                "batching": settings.batching.settings(),
                **{f"--{flag.replace('_', '-')}": getattr(self, flag) for flag in flags},
            },
        )
