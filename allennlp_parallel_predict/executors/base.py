"""The interface of everything that can run batches."""

import sys
from contextlib import contextmanager
from typing import Callable, Iterator, List, NamedTuple, Optional, Protocol, Sequence

import torch
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.configurable import Configurable
from allennlp_parallel_predict.common.messages import Batch, BatchResult, WorkerOptions


class WorkerCounts(NamedTuple):
    """For the progress bar, the summary and the metrics."""

    alive: int
    restarts: int
    waiting: int = 0
    """The inputs that no worker has yet."""


class TakesBatches(Protocol):
    """An `Executor`, or what passes batches on to one."""

    def has_room(self) -> bool: ...

    def submit(self, batch: Batch) -> None: ...


def fill(
    target: TakesBatches, take: Callable[[], Optional[Batch]], at_most: int = sys.maxsize
) -> bool:
    """
    Submits batches as long as there is room for them: one half of every dispatch loop, of which the
    other is `Executor.collect`.

    # Parameters

    target : `TakesBatches`
        Where they go.
    take : `Callable[[], Optional[Batch]]`
        Gives the next batch, or `None` if there is none at the moment.
    at_most : `int`, optional (default = `sys.maxsize`)
        How many.

    # Returns

    `bool`
        Whether there was always a batch.
    """
    while at_most > 0 and target.has_room():
        batch = take()
        if batch is None:
            return False
        target.submit(batch)
        at_most -= 1
    return True


class Executor(Configurable):
    """
    Runs batches, some at a time, and gives results in the order in which they are finished.

    It is driven by one thread, which never waits but in `collect`:

    ```python
    with executor.preparing():
        predictor = Predictor.from_path("model.tar.gz")
        executor.start(predictor, WorkerOptions())
        batches = batching.batches(source, source.kind)
        while fill(executor, lambda: next(batches, None)) or not executor.is_idle():
            for result in executor.collect():
                ...
        executor.close()
    ```
    """

    default_implementation = "process_pool"

    num_workers: int = 1
    """The number of workers, known after `start`."""

    cpus: Optional[int] = None
    """The CPUs that there are for the workers, if those are not this machine's."""

    cuda_devices: List[int] = []
    """The GPUs that workers are dealt out over."""

    state_change: Optional[str] = None
    """What the model was found to keep from batch to batch, unless that does not matter."""

    loading_device: int = -1
    """The device on which `start` expects the model: a GPU, or -1 for the CPU."""

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Around loading the archive and running: what this executor needs of its process."""
        yield

    def start(
        self, predictor: Predictor, options: WorkerOptions, preserve_order: bool = True
    ) -> None:
        """
        Starts the workers.

        # Parameters

        predictor : `Predictor`
            The predictor, with its model on `loading_device`.
        options : `WorkerOptions`
            How workers treat failures and what they send back.
        preserve_order : `bool`, optional (default = `True`)
            Whether results are put into input order, for which those after a slow batch have to be
            held: no worker runs far ahead of it then, and the last batches wait for whoever is free
            first. Otherwise somebody waits for each batch: all workers are started at once.
        """
        raise NotImplementedError

    def has_room(self) -> bool:
        """Whether another batch may be submitted now; this is what bounds the memory."""
        raise NotImplementedError

    def is_idle(self) -> bool:
        """Whether every submitted batch has been collected."""
        raise NotImplementedError

    def submit(self, batch: Batch) -> None:
        """Takes a batch. Numbers must rise from call to call."""
        raise NotImplementedError

    def abandon(self, number: int, offsets: Sequence[int]) -> None:
        """
        Nobody waits for some inputs of a batch any more: if their worker dies, no other has to try
        them again. The batch's result comes all the same.
        """

    def collect(
        self, timeout: Optional[float] = None, wake: Sequence[int] = ()
    ) -> List[BatchResult]:
        """
        Waits for something to happen and returns the results that it brought, perhaps none.

        # Parameters

        timeout : `float`, optional (default = `None`)
            The longest wait in seconds.
        wake : `Sequence[int]`, optional (default = `()`)
            File descriptors that end the wait when they can be read.

        # Raises

        `WorkerDied`
            If workers die again and again without finishing anything.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Ends the workers in peace. Does nothing the second time."""

    def kill(self) -> None:
        """Ends the workers at once."""
        self.close()

    def threads(self) -> int:
        """The threads of torch in each worker; some models' last digits depend on it."""
        return torch.get_num_threads()

    def counts(self) -> WorkerCounts:
        return WorkerCounts(self.num_workers, 0)

    def describe(self) -> str:
        """The workers, for the summary at the end of a run."""
        raise NotImplementedError
