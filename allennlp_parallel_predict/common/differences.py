"""How far the outputs of two runs are apart. It needs nothing but the standard library."""

import math
from typing import Any, Dict, List

_MISSING = object()
_MASKED = 65_000
"""AllenNLP masks with the least number of a type, which is -65,504 or less."""


class Differences:
    """
    Adds up what differs between outputs, as JSON. Everything but a real number is a label, also in
    lists and objects; lists of labels are sequences.
    """

    def __init__(self) -> None:
        self.labels: Dict[str, List[bool]] = {}
        """Which labels are equal, by their key in the output."""
        self.largest = 0.0
        """The largest difference between two real numbers."""
        self.sequences: List[bool] = []
        """Which sequences are equal."""

    def add(self, expected: Any, found: Any, field: str = "") -> None:
        """Compares two outputs."""
        parts, others = _parts(expected), _parts(found)
        if _is_sequence(expected) or _is_sequence(found):
            self.sequences.append(expected == found)
        for key in {**parts, **others}:
            name = field or str(key)
            self.add(parts.get(key, _MISSING), others.get(key, _MISSING), name)
        if parts or others:
            return
        distance = _distance(expected, found)
        if distance < math.inf:
            self.largest = max(self.largest, distance)
        else:
            self.labels.setdefault(field, []).append(expected == found)

    def share(self, field: str) -> float:
        """The part of the labels under a key that are equal."""
        return sum(self.labels[field]) / len(self.labels[field])


def _parts(value: Any) -> Dict[Any, Any]:
    if isinstance(value, dict):
        return value
    return dict(enumerate(value)) if isinstance(value, list) else {}


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list) and not any(isinstance(v, (float, list, dict)) for v in value)


def _distance(one: Any, other: Any) -> float:
    """Infinite if they are not both numbers, as NaN is none."""
    if not (type(one) is type(other) is float):
        return math.inf
    if one == other or one != one and other != other or min(abs(one), abs(other)) > _MASKED:
        return 0.0
    distance = abs(one - other)
    return math.inf if math.isnan(distance) else distance
