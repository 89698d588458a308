"""One attempt at predicting a batch, and what to do about inputs that fail."""

import io
import pickle
from contextlib import redirect_stdout
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Type

import torch
from allennlp.predictors import Predictor

from allennlp_parallel_predict.accelerate.fast_json import encode
from allennlp_parallel_predict.common.errors import explain
from allennlp_parallel_predict.common.messages import (
    Batch,
    BatchKind,
    BatchResult,
    Failure,
    OnError,
    WorkerOptions,
)
from allennlp_parallel_predict.common.remote_errors import RemoteError
from allennlp_parallel_predict.data.inputs import InvalidInput
from allennlp_parallel_predict.data.lazy_instances import DeferredCall
from allennlp_parallel_predict.models.state import InputCounters
from allennlp_parallel_predict.worker.join import Join

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


class _CapturedOutput(io.TextIOWrapper):
    """What is printed, also through `sys.stdout.buffer`."""

    def __init__(self) -> None:
        self.written = io.BytesIO()
        super().__init__(
            self.written, "utf-8", errors="surrogatepass", newline="", write_through=True
        )

    def take(self) -> str:
        """What has been printed since the last call."""
        data = self.written.getvalue()
        if data:
            self.written.seek(0)
            self.written.truncate()
        try:
            return data.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return data.decode("utf-8", "backslashreplace")


class Attempt:
    """The work on one batch, and what it has brought so far."""

    def __init__(
        self,
        predictor: Predictor,
        options: WorkerOptions,
        batch: Batch,
        counters: InputCounters,
        failure_type: Type[BaseException],
        join: Optional[Join] = None,
    ) -> None:
        self._failure_type = failure_type
        self._predictor = predictor
        self._options = options
        self._batch = batch
        self._counters = counters
        self._join = join
        self._kept: Dict[int, Any] = {}
        self.stdout = _CapturedOutput()
        self._outputs: Dict[int, Any] = {}
        self._descriptions: Dict[int, Optional[str]] = {}
        self._printed: Dict[int, str] = {}
        self._failures: List[Failure] = []
        self._fatal: Optional[Failure] = None

    def has_failed(self) -> bool:
        return self._fatal is not None or bool(self._failures)

    def run_captured(self) -> None:
        with redirect_stdout(self.stdout):
            self.run()

    def run(self) -> None:
        loaded = self._load(range(len(self._batch.values)))
        if self._fatal is None:
            self._predict(loaded)

    def result(self, state_change: Optional[str]) -> BatchResult:
        size = max(self._outputs, default=-1) + 1
        self._take_printed(size)
        return BatchResult(
            self._batch.number,
            _by_offset(self._outputs, size),
            _by_offset(self._descriptions, size) if self._options.echo_inputs else None,
            self._printed or None,
            sorted(self._failures),
            self._fatal,
            state_change,
        )

    def _load(self, offsets: Any) -> Dict[int, Any]:
        """The predictor's inputs, by offset."""
        loaded: Dict[int, Any] = {}
        values, load = self._batch.values, self._loader()
        for offset in offsets:
            try:
                value = load(values[offset])
                if self._join is not None:
                    self._kept[offset] = self._join.kept(value)
                loaded[offset] = value
            except self._failure_type as error:
                self._fail(offset, error)
                if self._fatal is not None:
                    break
        return loaded

    def _loader(self) -> Callable[[Any], Any]:
        if not self._batch.kind.returns_text:
            return pickle.loads
        if self._batch.kind is not BatchKind.LINES:
            return self._make_instance
        return self._predictor.load_line if self._options.encoding is None else self._load_checked

    def _make_instance(self, value: Any) -> Any:
        is_call = isinstance(value, DeferredCall)
        return value.make(self._predictor._dataset_reader) if is_call else value

    def _load_checked(self, line: str) -> Any:
        if isinstance(line, InvalidInput):
            raise explain(ValueError(line.problem), line.problem)
        if not line.isascii():
            _check_decoded(line, str(self._options.encoding))
        return self._predictor.load_line(line)

    def _predict(self, loaded: Dict[int, Any]) -> None:
        """Predicts a group; if that fails, finds out which of its inputs is to blame."""
        offsets = list(loaded)
        while offsets:
            before = len(self._outputs)
            problem: Optional[BaseException] = None
            self._count_from(offsets[0])
            try:
                self._take_all(offsets, self._group(loaded))
                return
            except self._failure_type as error:
                problem = error
            done = len(self._outputs) - before
            if done == 0 and len(offsets) > 1:
                self._take_apart(offsets, problem)
                return
            self._fail(offsets[done], problem)
            if self._fatal is not None:
                return
            # The inputs after it have been predicted once: a predictor may have changed them.
            offsets = offsets[done + 1 :]
            loaded = self._load(offsets)

    def _take_all(self, offsets: List[int], group: Iterator[Tuple[Any, Optional[str]]]) -> None:
        is_described, has_printed = self._options.echo_inputs, self.stdout.written.tell
        for offset, (output, description) in zip(offsets, group):
            self._outputs[offset] = output
            if is_described:
                self._descriptions[offset] = description
            if has_printed():
                self._take_printed(offset)

    def _take_apart(self, offsets: List[int], problem: BaseException) -> None:
        if _is_out_of_memory(problem):
            middle = len(offsets) // 2
            parts = [offsets[:middle], offsets[middle:]]
        elif self._options.on_error == OnError.RAISE:
            self._fatal = Failure(self._find_culprit(offsets), RemoteError.of(problem))
            return
        else:
            parts = [[offset] for offset in offsets]
        # The traceback holds the tensors that did not fit.
        problem.__traceback__ = None
        del problem
        for part in parts:
            self._predict(self._load(part))
            if self._fatal is not None:
                return

    def _find_culprit(self, offsets: List[int]) -> int:
        """The first input that fails on its own, so that the user can be told its line."""
        for offset in offsets:
            self._count_from(offset)
            try:
                list(self._group(self._load([offset])))
            except self._failure_type:
                return offset
        return offsets[0]

    def _count_from(self, offset: int) -> None:
        # From Python, inputs have no positions but those in their call.
        is_known = self._batch.kind.returns_text
        self._counters.go_to(self._batch.positions[offset:] if is_known else ())

    def _group(self, loaded: Dict[int, Any]) -> Iterator[Tuple[Any, Optional[str]]]:
        """`allennlp predict`'s way with a group of inputs: a group of one is not a batch."""
        inputs = list(loaded.values())
        predictor, kind = self._predictor, self._batch.kind
        one: Callable[[Any], Any] = predictor.predict_json
        many: Callable[[Any], Any] = predictor.predict_batch_json
        if kind.has_instances:
            one, many = predictor.predict_instance, predictor.predict_batch_instance
        is_single = len(inputs) == 1 and not kind.is_one_call
        results = [one(inputs[0])] if is_single else many(inputs)
        if not kind.returns_text:
            for _, result in zip(inputs, results):
                yield pickle.dumps(result, pickle.HIGHEST_PROTOCOL), None
            return
        describe: Callable[[Any], str] = encode
        if kind.has_instances:
            describe = str
        dumped: Iterator[str] = map(predictor.dump_line, results)
        if self._join is not None:
            kept = [self._kept[offset] for offset in loaded]
            dumped = self._join.dump(predictor, results, kept)
        for model_input, output in zip(inputs, dumped):
            # Described even if nobody sees it: `predict` fails on what JSON cannot express.
            description = describe(model_input)
            if self._options.output_encodings:
                written = [output, description] if self._options.echo_inputs else [output]
                _check_encodable(written, self._options.output_encodings)
            yield output, description

    def _take_printed(self, offset: int) -> None:
        printed = self.stdout.take()
        if printed:
            self._printed[offset] = self._printed.get(offset, "") + printed

    def _fail(self, offset: int, error: BaseException) -> None:
        failure = Failure(offset, RemoteError.of(error))
        if self._options.on_error == OnError.RAISE:
            self._fatal = failure
        else:
            self._failures.append(failure)


def _by_offset(found: Dict[int, Any], size: int) -> List[Any]:
    """What was found in rising order; `None` for what was not."""
    return list(found.values() if len(found) == size else map(found.get, range(size)))


def _check_decoded(line: str, encoding: str) -> None:
    """
    # Raises

    `UnicodeDecodeError`
        If the source kept a byte as a surrogate because it could not be decoded.
    """
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        line.encode(encoding, "surrogateescape").decode(encoding)


def _check_encodable(texts: Sequence[Any], encodings: Sequence[Tuple[str, str]]) -> None:
    """Raises what writing the texts would raise: here it costs one input, and there the run."""
    for text in texts:
        if not isinstance(text, str):
            name = "None" if text is None else type(text).__name__
            raise TypeError(f"write() argument must be str, not {name}")
        if not text.isascii():
            for encoding, errors in encodings:
                text.encode(encoding, errors)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError):
        return True
    is_allocator = isinstance(error, RuntimeError) and any(s in str(error) for s in _OUT_OF_MEMORY)
    if is_allocator and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return is_allocator
