"""
Where inputs come from: a file (local, URL, compressed), standard input, or a dataset reader.

A source numbers its inputs and never looks into them: parsing is the workers' work.
"""

import codecs
import io
import os
import select
import stat
import sys
from contextlib import contextmanager
from itertools import islice
from typing import Any, Iterable, Iterator, List, Optional, Sequence, TextIO

from allennlp.common.checks import ConfigurationError
from allennlp.common.file_utils import cached_path
from allennlp.data import DatasetReader
from allennlp.data.dataset_readers import MultiTaskDatasetReader
from allennlp.data.dataset_readers.dataset_reader import WorkerInfo

from allennlp_parallel_predict.common.errors import explain, user_error_context
from allennlp_parallel_predict.common.messages import BatchKind
from allennlp_parallel_predict.data.compression import READ_ERRORS, compression_of, open_text
from allennlp_parallel_predict.data.inputs import Block, Input, in_blocks
from allennlp_parallel_predict.data.lazy_instances import LazyInstance, deferring

STDIN = "-"
_BLOCK = 1 << 16


class Source:
    """
    The base class of sources: an iterable of `Input`s, and of `None` where nothing is there yet
    but more may come (wait for `fileno()` then).
    """

    kind = BatchKind.LINES
    encoding: Optional[str] = None
    """If set, a surrogate in a line stands for a byte that this encoding cannot decode."""
    is_indexed = False
    """Whether `total` is exact and each input is a line, so that nothing is read to count them."""

    def __iter__(self) -> Iterator[Optional[Input]]:
        raise NotImplementedError

    def blocks(self, size: int) -> Iterator[Optional[Block]]:
        """The same inputs, `size` at a time."""
        return in_blocks(self, size)

    def fileno(self) -> Optional[int]:
        """The file descriptor to wait for after a `None`."""
        return None

    def total(self) -> Optional[int]:
        """About how many inputs there are, where that can be known quickly."""
        return None


def reads_once(input_file: str) -> bool:
    """Whether what has been read of an input is gone: standard input, a FIFO, `<(command)`."""
    if input_file == STDIN:
        return True
    try:
        mode = os.stat(input_file).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


class LineSource(Source):
    """
    The lines of a text that are not blank.

    Undecodable bytes are kept as surrogates, so that they cost one line and not all that follow:
    the worker that gets the line raises the error.

    # Parameters

    input_file : `str`
        A path, a URL, a compressed file (gz, bz2, xz, zst), a FIFO, or `-` for standard input.
    skip_lines : `int`, optional (default = `0`)
        The number of lines that an interrupted run has dealt with.
    first_position : `int`, optional (default = `0`)
        The number of inputs in those lines.
    newline : `str`, optional (default = `None`)
        As for `open`, for a file; of a pipe all line ends become `"\\n"`.
    """

    def __init__(
        self,
        input_file: str,
        skip_lines: int = 0,
        first_position: int = 0,
        newline: Optional[str] = None,
    ) -> None:
        self.input_file = input_file
        self._skip_lines = skip_lines
        self._first_position = first_position
        self._newline = newline
        self._reads_once = reads_once(input_file)
        self._pipe = _pipe_behind_stdin() if input_file == STDIN else None
        """The file descriptor of an input that is not all there, once it has been opened."""
        if input_file != STDIN:
            self.encoding = "UTF-8"
        elif getattr(sys.stdin, "errors", None) == "strict" and hasattr(sys.stdin, "reconfigure"):
            self.encoding = sys.stdin.encoding
            sys.stdin.reconfigure(errors="surrogateescape")

    def __iter__(self) -> Iterator[Optional[Input]]:
        position = self._first_position
        line_number = 0
        for line in self.lines():
            if line is None:
                yield None
                continue
            line_number += 1
            if line_number > self._skip_lines and not line.isspace():
                yield Input(position, line_number, line)
                position += 1

    def blocks(self, size: int) -> Iterator[Optional[Block]]:
        is_all_there = self._pipe is None and (self.input_file == STDIN or not self._reads_once)
        return self._blocks(size) if is_all_there else super().blocks(size)

    def _blocks(self, size: int) -> Iterator[Block]:
        position = self._first_position
        values: List[str] = []
        numbers: Sequence[int] = ()
        with self._opened() as lines:
            read = sum(1 for _ in islice(lines, self._skip_lines))
            while True:
                some = list(islice(lines, size - len(values)))
                which: Sequence[int] = range(read + 1, read + 1 + len(some))
                read += len(some)
                is_end = not some
                if any(map(str.isspace, some)):
                    which = [n for n, line in zip(which, some) if not line.isspace()]
                    some = [line for line in some if not line.isspace()]
                values, numbers = values + some, [*numbers, *which] if values else which
                if len(values) == size or values and is_end:
                    yield Block(values, range(position, position + len(values)), numbers)
                    position += len(values)
                    values = []
                if is_end:
                    return

    def lines(self) -> Iterator[Optional[str]]:
        """All lines, blank ones too, or `None` instead of waiting."""
        if self.input_file == STDIN and self._pipe is not None:
            errors = sys.stdin.errors or "strict"
            yield from _lines_as_they_come(self._pipe, sys.stdin.encoding, errors)
        elif self.input_file != STDIN and self._reads_once:
            with user_error_context("cannot read the input file", OSError):
                with open(self.input_file, "rb", buffering=0) as file:
                    self._pipe = file.fileno()
                    yield from _lines_as_they_come(self._pipe, "UTF-8", "surrogateescape")
        else:
            with self._opened() as lines:
                yield from lines

    @contextmanager
    def _opened(self) -> Iterator[TextIO]:
        if self.input_file == STDIN:
            yield sys.stdin
            return
        with user_error_context("cannot read the input file", *READ_ERRORS):
            with open_text(cached_path(self.input_file), self._newline) as lines:
                yield lines

    def fileno(self) -> Optional[int]:
        return self._pipe

    def total(self) -> Optional[int]:
        if self._reads_once:
            return None
        try:
            path = cached_path(self.input_file)
            if compression_of(path) is not None:
                return None
            with open(path, "rb") as file:
                blocks = iter(lambda: file.read(1 << 20), b"")
                return sum(block.count(b"\n") for block in blocks)
        except OSError:
            return None


def _pipe_behind_stdin() -> Optional[int]:
    """Standard input's file descriptor, if reading it may have to wait for somebody."""
    try:
        fileno = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return None  # replaced by a test or a notebook
    return None if stat.S_ISREG(os.fstat(fileno).st_mode) else fileno


def _lines_as_they_come(fileno: int, encoding: str, errors: str) -> Iterator[Optional[str]]:
    """Lines with their ends, as a text file yields them, or `None` instead of waiting."""
    bytes_decoder = codecs.getincrementaldecoder(encoding)(errors)
    decoder = io.IncrementalNewlineDecoder(bytes_decoder, translate=True)
    unfinished: List[str] = []
    at_end = False
    while not at_end:
        if not select.select([fileno], [], [], 0)[0]:
            yield None
            continue
        block = os.read(fileno, _BLOCK)
        at_end = not block
        *finished, rest = decoder.decode(block, final=at_end).split("\n")
        for line in finished:
            unfinished.append(line)
            yield "".join(unfinished) + "\n"
            unfinished = []
        if rest:
            unfinished.append(rest)
    if unfinished:
        yield "".join(unfinished)


class InstanceSource(Source):
    """
    The instances of a dataset reader, as `allennlp predict --use-dataset-reader` gets them.

    # Parameters

    reader : `DatasetReader`
        The reader of the archive.
    input_file : `str`
        What the reader reads.
    multitask_head : `str`, optional (default = `None`)
        The head to read for, if the reader is a `MultiTaskDatasetReader`.
    skip : `int`, optional (default = `0`)
        The number of instances that an interrupted run has dealt with.

    # Raises

    `ConfigurationError`
        As `allennlp predict` does, if head and reader do not fit each other.
    """

    kind = BatchKind.READER_INSTANCES

    def __init__(
        self,
        reader: DatasetReader,
        input_file: str,
        multitask_head: Optional[str] = None,
        skip: int = 0,
    ) -> None:
        check_multitask_head(reader, multitask_head)
        self._reader = reader
        self._input_file = input_file
        self._multitask_head = multitask_head
        self._skip = skip

    def __iter__(self) -> Iterator[Optional[Input]]:
        if self._input_file == STDIN:
            raise _mistake("stdin is not an option when using a DatasetReader.")
        with deferring(self._reader):
            for position, instance in enumerate(self._instances()):
                if position >= self._skip:
                    is_deferred = isinstance(instance, LazyInstance)
                    value = instance.travelling() if is_deferred else instance
                    yield Input(position, position + 1, value)

    def _instances(self) -> Iterable[Any]:
        if isinstance(self._reader, MultiTaskDatasetReader):
            return self._reader.read(self._input_file, force_task=self._multitask_head)
        # As the only worker of a data loader, a reader reads everything but leaves the token
        # indexers off; the predictor in the worker puts them on, and the instance travels light.
        if self._reader._worker_info is None:
            self._reader._set_worker_info(WorkerInfo(num_workers=1, id=0))
        return self._reader.read(self._input_file)


def check_multitask_head(reader: Optional[DatasetReader], multitask_head: Optional[str]) -> None:
    """The checks that `allennlp predict` makes, in its words."""
    is_multitask = isinstance(reader, MultiTaskDatasetReader)
    if multitask_head is not None and reader is None:
        raise _mistake("You must use a dataset reader when using --multitask-head.")
    if multitask_head is not None and not is_multitask:
        raise _mistake("--multitask-head only works with a multitask dataset reader.")
    if is_multitask and multitask_head is None:
        raise _mistake("You must specify --multitask-head when using a multitask dataset reader.")


def _mistake(message: str) -> ConfigurationError:
    return explain(ConfigurationError(message), message)
