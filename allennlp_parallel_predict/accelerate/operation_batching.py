"""
Lines that are predicted one by one, but pass through the layers of a transformer together.

With batches of one line, `allennlp predict`'s default, each line takes all weights from memory, and
the library that multiplies matrices puts them into an order of its own each time: a third of the
time of a small BERT. So several lines are predicted at once, each by calls of its own in a thread
of its own. One of the threads runs at a time, until its next linear layer; when all are there, one
product computes the rows of all of them. The rest is the model's own code, on the line's own
tensors, and the bits are the same: see `row_invariance`.
"""

import functools
import sys
import threading
from collections import deque
from queue import SimpleQueue
from typing import Any, Callable, Deque, Dict, Iterable, List, Optional, Sequence

import torch
from torch import Tensor
from torch.nn import Linear

from allennlp_parallel_predict.accelerate.padding import different_layers, layer_trial
from allennlp_parallel_predict.accelerate.row_invariance import EquivalenceClasses, is_watched

GROUP_SIZE = 8
"""The lines that are predicted at once. Twice as many bring 2 % more."""
_MOST_ROWS = 128
"""Of longer lines, little of the time is spent on the weights."""
_PART = 8
"""Products have a multiple of so many rows, so that not too many sizes have to be tried."""
_USUAL = 64
"""The size of a product whose first row is computed as most rows are."""


class OperationBatcher:
    """
    Predicts several lines at once.

    # Parameters

    layers : `List[Linear]`
        The layers that they pass together, of a model that only predicts from now on.
    exact : `bool`, optional (default = `True`)
        Whether each line has to get the bits that it gets by itself; else last digits may differ.

    # Examples

    ```python
    batcher = OperationBatcher(layers_to_share(predictor))
    batcher.run([lambda: outputs.append(predictor.predict_json(line)) for line in lines])
    ```
    """

    def __init__(self, layers: List[Linear], exact: bool = True) -> None:
        self._layers = layers
        self._plan = _GemmPlan(layers, exact)
        self._here = threading.local()
        self._lines: "SimpleQueue[_Lane]" = SimpleQueue()
        self.size = sum(self._start_thread() for _ in range(GROUP_SIZE))
        """The number of lines that can be predicted at once."""
        for layer in layers:
            self._share(layer)

    def _start_thread(self) -> bool:
        try:
            threading.Thread(target=self._run_lines, daemon=True).start()
        except RuntimeError:
            return False  # the system allows no more
        return True

    def _run_lines(self) -> None:
        torch.get_num_threads()  # torch gives a thread their number when it is first asked
        while True:
            self._here.line = self._lines.get()
            self._here.line.run()

    def _share(self, layer: Any) -> None:
        forward = layer.forward

        @functools.wraps(forward)
        def together(input: Tensor) -> Any:
            line: Optional[_Lane] = getattr(self._here, "line", None)
            if line is None or not _can_be_shared(input):
                return forward(input)
            outputs = line.meet_others(layer, input)
            return forward(input) if outputs is None else outputs

        layer.forward = together

    def run(self, functions: Sequence[Callable[[], None]]) -> None:
        """
        Calls functions, each of which predicts one line, by turns.

        # Parameters

        functions : `Sequence[Callable[[], None]]`
            Not more than `size`.

        # Raises

        `BaseException`
            What one of them raises, when all have ended.
        """
        assert len(functions) <= self.size, "each line needs a thread"
        if is_watched(*self._layers):
            for function in functions:
                function()
            return
        turns = _LaneScheduler(self._plan)
        lines = [_Lane(function, turns) for function in functions]
        for line in lines:
            self._lines.put(line)
        stdout = sys.stdout
        turns.take(lines)
        sys.stdout = stdout
        for line in lines:
            if line.error is not None:
                raise line.error


def _can_be_shared(inputs: Tensor) -> bool:
    is_one = inputs.dim() == 3 and len(inputs) == 1 and inputs.size(1) <= _MOST_ROWS
    return is_one and inputs.is_contiguous() and not torch.is_grad_enabled()


class _LaneScheduler:
    """Whose turn it is to run."""

    def __init__(self, plan: "_GemmPlan") -> None:
        self._plan = plan
        self._next: Deque[_Lane] = deque()
        self._waiting: List[_Lane] = []
        # A plain lock, as in `_Lane`: who waits takes it, and who lets go releases it. There is
        # no quicker way to hand over.
        self._has_ended = threading.Lock()
        self._has_ended.acquire()

    def take(self, lines: Iterable["_Lane"]) -> None:
        """Lets lines run until all have ended."""
        self._next.extend(lines)
        self.hand_over()
        self._has_ended.acquire()

    def wait(self, line: "_Lane") -> None:
        """In the thread of a line that has come to a layer: waits until all are there."""
        stdout = sys.stdout
        self._waiting.append(line)
        self.hand_over()
        line.may_go.acquire()
        sys.stdout = stdout

    def hand_over(self) -> None:
        """In the thread that stops running: lets the next one run."""
        if not self._next and self._waiting:
            self._plan.compute(self._waiting)
            self._next.extend(self._waiting)
            self._waiting.clear()
        (self._next.popleft().may_go if self._next else self._has_ended).release()


class _Lane:
    """A call in a thread, and the layer at which it waits."""

    def __init__(self, function: Callable[[], None], turns: _LaneScheduler) -> None:
        self.may_go = threading.Lock()
        self.may_go.acquire()
        self.layer: Any = None
        self.inputs: Any = None
        self.outputs: Optional[Tensor] = None
        self.error: Optional[BaseException] = None
        self._function = function
        self._turns = turns

    def run(self) -> None:
        """In its thread: calls the function, in turns with other lines."""
        self.may_go.acquire()
        try:
            self._function()
        except BaseException as error:
            self.error = error
        self._turns.hand_over()

    def meet_others(self, layer: Linear, inputs: Tensor) -> Optional[Tensor]:
        """In its thread: gives what the layer computes, or `None` if nobody has computed it."""
        self.layer, self.inputs = layer, inputs
        self._turns.wait(self)
        outputs, self.inputs, self.outputs = self.outputs, None, None
        return outputs


class _GemmPlan:
    """
    Computes the rows of several lines with one product, as far as that gives the same bits.

    How a row is computed depends on the number of rows and on its place among them. Most rows are
    computed in one way, the usual one, so they can take any place that is computed so. The last few
    are often computed like one row by itself.
    """

    def __init__(self, layers: List[Linear], exact: bool) -> None:
        self._exact = exact
        self._forwards = {layer: layer.forward for layer in layers}
        self._kinds = EquivalenceClasses()
        self._new_trial = functools.partial(layer_trial, different_layers(layers))
        self._usual: Dict[int, int] = {}
        self._shared: Dict[int, int] = {}

    def compute(self, waiting: List[_Lane]) -> None:
        """Gives the lines that wait at layers their outputs, unless they have to do it alone."""
        with torch.no_grad():
            for layer in {line.layer: None for line in waiting}:
                try:
                    self._compute(layer, [line for line in waiting if line.layer is layer])
                except Exception:
                    pass  # Perhaps want of memory: each line tries for itself, and may fail.

    def _compute(self, layer: Linear, lines: List[_Lane]) -> None:
        shared = [self._shared_rows(line.inputs.size(1)) for line in lines]
        taking_part = [(line, rows) for line, rows in zip(lines, shared) if rows]
        size = self._size(sum(shared)) if len(taking_part) > 1 else 0
        if not size:
            return
        parts = [line.inputs[0, :rows] for line, rows in taking_part]
        parts.append(parts[0].new_zeros(size - sum(shared), parts[0].size(1)))
        computed = self._forward(layer, torch.cat(parts)).split([len(part) for part in parts])
        for (line, rows), first in zip(taking_part, computed):
            rest = [self._forward(layer, row[None].clone()) for row in line.inputs[0, rows:]]
            # A copy in any case: a product may depend on where in memory a row begins.
            line.outputs = torch.cat([first, *rest])[None]

    def _forward(self, layer: Linear, rows: Tensor) -> Tensor:
        """Of three dimensions, as a model's: torch adds the bias elsewhere if there are two."""
        return self._forwards[layer](rows[None])[0]

    def _shared_rows(self, count: int) -> int:
        """How many of a line's rows, from the first on, can be computed among others."""
        if not self._exact:
            return count
        if count not in self._shared:
            shared = self._usual_rows(count)
            is_rest_single = bool((self._kinds_of(count)[shared:] == self._kinds_of(1)).all())
            self._shared[count] = shared if is_rest_single else 0
        return self._shared[count]

    def _size(self, rows: int) -> int:
        """The size of a product whose first rows are computed in the usual way; 0 for none."""
        if not self._exact:
            return rows
        smallest = -(-rows // _PART) * _PART
        return smallest if self._usual_rows(smallest) >= rows else 0

    def _usual_rows(self, count: int) -> int:
        """How many of so many rows, from the first on, are computed in the usual way."""
        if count not in self._usual:
            is_usual = self._kinds_of(count) == self._kinds_of(_USUAL)[0]
            self._usual[count] = int(is_usual.long().cumprod(0).sum())
        return self._usual[count]

    def _kinds_of(self, count: int) -> Tensor:
        if count not in self._kinds.tried:
            self._kinds.run(count, self._new_trial)
        return self._kinds.tried[count]
