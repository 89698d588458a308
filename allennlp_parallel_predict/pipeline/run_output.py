"""One output of a run: the inputs that it is made from, and what an earlier run has left of it."""

from typing import List, Optional, Tuple

from allennlp.predictors import Predictor

from allennlp_parallel_predict.data.files import close_all, is_regular, open_outputs
from allennlp_parallel_predict.data.formats import format_by_name, open_source
from allennlp_parallel_predict.data.limits import LimitedSource
from allennlp_parallel_predict.data.parquet_output import ConvertedFile
from allennlp_parallel_predict.data.sharding import Shard
from allennlp_parallel_predict.data.sinks import OutputPosition, Sink
from allennlp_parallel_predict.data.sources import (
    InstanceSource,
    Source,
    check_multitask_head,
    reads_once,
)
from allennlp_parallel_predict.pipeline.checkpoint import Checkpoint
from allennlp_parallel_predict.pipeline.config import RunConfig
from allennlp_parallel_predict.pipeline.pipeline import Pipeline
from allennlp_parallel_predict.pipeline.signals import Interrupts
from allennlp_parallel_predict.settings import Settings


class RunOutput:
    """
    Its files are opened at once, which keeps other runs from them, but stay as they are until
    `begin`.

    # Parameters

    config : `RunConfig`
        The run as if it had only this output.
    settings : `Settings`
        The settings of the run.
    """

    def __init__(self, config: RunConfig, settings: Settings) -> None:
        self.config = config
        self.checkpoint: Optional[Checkpoint] = None
        self.start = OutputPosition()
        """Where the run goes on."""
        self.sources: List[Source] = []
        """The inputs that are not finished, from `open_inputs` on."""
        self._settings = settings
        self._output, self._errors = open_outputs(
            config.output_file, config.errors_file, config.output_class
        )
        self._sink: Optional[Sink] = None
        self._is_claimed = False
        self._reads_once = reads_once(config.input_file)

    def is_complete(self) -> bool:
        """Looks for an earlier run; returns whether there is nothing left to do."""
        config = self.config
        if not config.output_file or not is_regular(config.output_file):
            return False
        checkpoint = Checkpoint(config.output_file, config.identity(self._settings))
        if not config.resume and not config.overwrite and self._output is not None:
            checkpoint.protect(self._output.path)
        self.checkpoint = checkpoint
        if config.resume and checkpoint.exists():
            self._resume(checkpoint)
        if not config.resume or not checkpoint.is_complete():
            return False
        checkpoint.remove()  # what a crash left of it
        return True

    def _resume(self, checkpoint: Checkpoint) -> None:
        self.start = at = checkpoint.load()
        for file, size, checksum in (
            (self._output, at.output_bytes, at.output_checksum),
            (self._errors, at.errors_bytes, at.errors_checksum),
        ):
            if file is not None and not file.resume_at(size, checksum):
                raise checkpoint.refuse_output(file.path)

    def open_inputs(self, predictor: Predictor, span: int) -> None:
        """From here on `sources` and `start` are known; `span` is `Batching.span`."""
        first, *others = self.config.input_files[self.start.inputs :]
        self.start, end = self._bounds(predictor, first, span)
        self.sources = [self._source(predictor, first, self.start, end)]
        self.sources += [self._source(predictor, i, OutputPosition(), end) for i in others]

    def _bounds(
        self, predictor: Predictor, input_file: str, span: int
    ) -> Tuple[OutputPosition, Optional[int]]:
        """Where the run starts, and the position after its last input if there are others."""
        start, limit = self.start, self.config.limit
        if self.config.shard is None:
            return start, limit
        whole = self._source(predictor, input_file, OutputPosition(), limit)
        shard = Shard.parse(self.config.shard).bounds(whole, span)
        if start.positions < shard.start:
            # It begins as the whole run would go on here.
            start = OutputPosition(shard.lines, shard.start, predictions=shard.start)
        return start, shard.end

    def _source(
        self, predictor: Predictor, input_file: str, start: OutputPosition, end: Optional[int]
    ) -> Source:
        config = self.config
        reader = predictor._dataset_reader if config.use_dataset_reader else None
        check_multitask_head(reader, config.multitask_head)
        source: Source
        if reader is None:
            format = config.format(format_by_name(input_file, predictor))
            source = open_source(input_file, format, (start.lines, start.positions))
        else:
            source = InstanceSource(reader, input_file, config.multitask_head, start.positions)
        return source if end is None else LimitedSource(source, end)

    def claim(self) -> None:
        """Has to be done before any output is touched: one without a checkpoint is complete."""
        if self.checkpoint is not None and not self._reads_once and not self._is_claimed:
            self.checkpoint.save(self.start)
        self._is_claimed = True

    def begin(self) -> Sink:
        """Makes the output this run's."""
        if self._sink is None:
            self.claim()
            self._sink = self._new_sink()
            if self.checkpoint is not None and self._reads_once:
                self.checkpoint.remove()
                self.checkpoint = None
        return self._sink

    def _new_sink(self) -> Sink:
        return Sink(
            self._output,
            self._errors,
            print_to_console=not self.config.silent,
            on_error=self._settings.on_error,
            start=self.start,
        )

    def finish(self, pipeline: Pipeline, interrupts: Interrupts) -> None:
        """The pipeline has written all of it."""
        converted = self._output if isinstance(self._output, ConvertedFile) else None
        if converted is not None:
            pipeline.save_checkpoint()
            converted.convert()  # may be interrupted
        with interrupts.shielded():
            pipeline.finish()
            if converted is not None:
                converted.remove_lines()  # not before the run is known to be complete

    def close(self) -> None:
        close_all(file for file in (self._output, self._errors) if file is not None)
