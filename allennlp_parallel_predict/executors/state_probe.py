"""Finds out by the first batches whether a model keeps state, while nothing is lost yet."""

from enum import Enum
from typing import List, Optional, Tuple

from allennlp_parallel_predict.common.messages import BatchResult


class ModelKind(Enum):
    """What is known of a model."""

    UNKNOWN = "unknown"
    STATELESS = "stateless"
    STATEFUL = "stateful"


class StateProbe:
    """
    Holds results until the first batch is finished and shows whether the model keeps state. If it
    does, nothing has left the executor, so that one worker can predict everything in order.

    # Parameters

    is_needed : `bool`
        Whether it matters: not with one worker, which predicts in order in any case.
    """

    def __init__(self, is_needed: bool) -> None:
        self.kind = ModelKind.UNKNOWN if is_needed else ModelKind.STATELESS
        self._held: List[Tuple[BatchResult, int]] = []

    @property
    def is_open(self) -> bool:
        """Whether it is not known yet what the model does."""
        return self.kind is ModelKind.UNKNOWN

    def decide(self, result: BatchResult) -> None:
        """The batch of this result has shown what the model does."""
        is_stateful = result.state_change is not None
        self.kind = ModelKind.STATEFUL if is_stateful else ModelKind.STATELESS

    def add(
        self, result: BatchResult, size: int, first: Optional[int]
    ) -> List[Tuple[BatchResult, int]]:
        """
        Takes a result; returns what need not be held any longer.

        # Parameters

        result : `BatchResult`
            The result of a batch that is finished.
        size : `int`
            Its size in bytes.
        first : `int`, optional
            The number of the first batch that is not finished, or was not before this one.
        """
        if not self.is_open:
            return [(result, size)]
        self._held.append((result, size))
        if result.state_change is None and result.number != first:
            return []
        self.decide(result)
        held, self._held = self._held, []
        return [] if self.kind is ModelKind.STATEFUL else held
