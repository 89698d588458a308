"""The messages between the parent and its workers: batches, options and results."""

from enum import Enum
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from allennlp_parallel_predict.common.remote_errors import RemoteError
from allennlp_parallel_predict.common.stopwatch import Span


class _StrEnum(str, Enum):
    """Members are their values, also when formatted, on every Python version."""

    __str__ = str.__str__
    __format__ = str.__format__  # type: ignore[assignment]


class OnError(_StrEnum):
    """What happens at an input that cannot be predicted."""

    RAISE = "raise"
    """The run ends, as that of `allennlp predict` does."""
    SKIP = "skip"
    """The input is left out of the output."""
    PLACEHOLDER = "placeholder"
    """The error takes the place of the output."""


class Precision(_StrEnum):
    """In how many bits a model computes."""

    FP32 = "fp32"
    TF32 = "tf32"
    FP16 = "fp16"
    BF16 = "bf16"


class BatchKind(_StrEnum):
    """
    What the values of a batch are, and how they are predicted. The command's kinds give text. The
    Python interface's give dictionaries, for which inputs and outputs are pickled one by one: each
    time that an input is needed it is as the caller gave it.
    """

    LINES = "lines"
    """Raw lines in, text out: what the command does."""
    READER_INSTANCES = "reader_instances"
    """Instances of a dataset reader in, text out: `--use-dataset-reader`."""
    JSON = "json"
    """Dictionaries, predicted by `predict_json`, or `predict_batch_json` if there are several."""
    JSON_BATCH = "json_batch"
    """The list of one call of `predict_batch_json`, even of one."""
    INSTANCE = "instance"
    """Instances, predicted by `predict_instance` or `predict_batch_instance`."""
    INSTANCE_BATCH = "instance_batch"
    """The list of one call of `predict_batch_instance`, even of one."""

    @property
    def returns_text(self) -> bool:
        """Whether outputs are text; else they are pickled one by one, and so are inputs."""
        return self is BatchKind.LINES or self is BatchKind.READER_INSTANCES

    @property
    def has_instances(self) -> bool:
        """Whether the values are instances."""
        return self in (
            BatchKind.READER_INSTANCES,
            BatchKind.INSTANCE,
            BatchKind.INSTANCE_BATCH,
        )

    @property
    def is_one_call(self) -> bool:
        """Whether even a batch of one is predicted as a batch."""
        return self is BatchKind.JSON_BATCH or self is BatchKind.INSTANCE_BATCH


class Batch(NamedTuple):
    """What a worker predicts at once."""

    number: int
    kind: BatchKind
    values: List[Any]
    positions: Sequence[int]
    line_numbers: Sequence[int]
    ends_window: bool = True
    """No later batch holds an input from before the end of this one: a run may resume here."""
    input_file: Optional[str] = None
    """Where the inputs are from, if there are several files."""

    def to_message(self) -> Tuple[int, str, List[Any], Optional[int]]:
        """What a worker has to know; of the positions only the first, if the others follow it."""
        first = self.positions[0] if are_consecutive(self.positions) else None
        return self.number, self.kind.value, self.values, first

    @classmethod
    def of_message(cls, number: int, kind: str, values: List[Any], first: Optional[int]) -> "Batch":
        """What a worker knows of a batch."""
        positions = () if first is None else range(first, first + len(values))
        return cls(number, BatchKind(kind), values, positions, ())

    def only(self, offset: int) -> "Batch":
        """The batch of the one input at `offset`."""
        return self._replace(
            values=[self.values[offset]],
            positions=[self.positions[offset]],
            line_numbers=[self.line_numbers[offset]],
        )

    def text(self, offset: int) -> str:
        """The input at `offset` for an error message; an instance has no short form."""
        value = self.values[offset]
        return value.rstrip("\r\n") if isinstance(value, str) else f"({type(value).__name__})"

    def describe(self) -> str:
        lines = sorted(self.line_numbers)
        noun = "input line" if self.kind.returns_text else "input"
        if len(lines) == 1:
            return f"{noun} {lines[0]}{self.of_file}"
        among = "" if lines[-1] - lines[0] < 2 * len(lines) else f"{len(lines)} of "
        return f"{among}{noun}s {lines[0]}-{lines[-1]}{self.of_file}"

    def line(self, offset: int) -> str:
        """Where the input at `offset` is from, for an error message."""
        return f"input line {self.line_numbers[offset]}{self.of_file}"

    @property
    def of_file(self) -> str:
        return "" if self.input_file is None else f" of {self.input_file}"


def are_consecutive(positions: Sequence[int]) -> bool:
    """Whether there are any, and each but the first is one more than the one before."""
    if isinstance(positions, range):
        return len(positions) > 0 and positions.step == 1
    return len(positions) > 0 and list(positions) == list(
        range(positions[0], positions[0] + len(positions))
    )


class JoinOptions(NamedTuple):
    """What outputs get from their inputs, and which of their own fields they keep."""

    keep_input: bool = False
    id_field: Optional[str] = None
    output_fields: Optional[List[str]] = None
    """Dotted paths; `None` for all fields."""


class WorkerOptions(NamedTuple):
    """What every worker of a run is told once."""

    on_error: OnError = OnError.RAISE
    echo_inputs: bool = False
    """Whether the console shows the inputs, so that their descriptions are sent back."""
    encoding: Optional[str] = None
    """See `Source.encoding`."""
    output_encodings: Sequence[Tuple[str, str]] = ()
    """What outputs have to be encodable in, with the error handlers: what is not is a bad line."""
    profile: Optional[str] = None
    """The level of detail of a profile, or `None` for no profile."""
    exact: bool = True
    """Whether all bits have to be those of `allennlp predict`: see `Settings.exact`."""
    precision: Precision = Precision.FP32
    """In which the model computes; with any but fp32, `exact` is false."""
    may_group: bool = False
    """Whether workers may predict several batches at once: all batches are of one input."""
    group_size: int = 1
    """The number that they do. It is the executor's to decide, once."""
    join: Optional[JoinOptions] = None
    """How outputs are joined with inputs, if they are."""


TIMES = "times"
"""The level of detail that has no stages, and so no hooks."""
SUMS = "sums"
"""The level of detail that a report needs."""
SPANS = "spans"
"""The level of detail that a timeline needs."""


class BatchProfile(NamedTuple):
    """What a worker did from the end of the batch before to the end of this one."""

    pid: int
    since: float
    """The end of the batch before, or the start of the worker."""
    started: float
    ended: float
    stages: Dict[str, float]
    lengths: List[int]
    """Of the instances, in tokens."""
    tokens: int
    padded: int
    """The tokens with the padding."""
    threads: int
    cpu_seconds: float
    """Of the process, as long as it has been the worker's."""
    spans: List[Span]
    cpu_wait_seconds: float = 0.0
    """For how long its threads, all together, could have run but had no CPU."""
    skips_padding: bool = False
    """Whether the model's transformers leave out most of the work on padding."""


class Failure(NamedTuple):
    """One input that could not be predicted."""

    offset: int
    """Its place in the batch."""
    error: RemoteError


class BatchResult(NamedTuple):
    """What became of a batch."""

    number: int
    outputs: List[Any] = []
    """By offset; shorter than the batch if the predictor gave less, `None` for a failure."""
    descriptions: Optional[List[Optional[str]]] = None
    """The inputs as the console shows them, by offset."""
    printed: Optional[Dict[int, str]] = None
    """What the predictor printed itself, by the offset of the output that it came before."""
    failures: List[Failure] = []
    fatal: Optional[Failure] = None
    """The failure that ends the run, after the outputs before it."""
    state_change: Optional[str] = None
    """What the model changed in itself, so that later outputs may depend on this batch."""
    profile: Optional[BatchProfile] = None
    """Where the time went, if that was asked for."""
