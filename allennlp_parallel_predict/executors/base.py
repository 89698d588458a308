"""The interface of everything that can run batches."""

from contextlib import contextmanager
from typing import Iterator, List, NamedTuple, Optional, Sequence

import torch
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.configurable import Configurable
from allennlp_parallel_predict.common.messages import Batch, BatchResult, WorkerOptions


class WorkerCounts(NamedTuple):
    """For the progress bar and the summary."""

    alive: int
    restarts: int


class Executor(Configurable):
    """
    Runs batches, some at a time, and gives results in the order in which they are finished.

    It is driven by one thread, which never waits but in `collect`:

    ```python
    with executor.preparing():
        predictor = Predictor.from_path("model.tar.gz")
        executor.start(predictor, WorkerOptions())
        while not executor.is_idle() or more_batches:
            while executor.has_room() and more_batches:
                executor.submit(next(batches))
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

    preserve_order: bool = True
    """
    Whether results are put into input order, for which those after a slow batch have to be held: no
    worker runs far ahead of it then. Set it before `start`.
    """

    hold_back_last: bool = True
    """
    Whether a batch a worker waits for whoever is free first, so that at the end of the input nobody
    has two left while another has none; and more where they are short, for when results come. Set
    it before `start`.
    """

    state_change: Optional[str] = None
    """What the model was found to keep from batch to batch, unless that does not matter."""

    loading_device: int = -1
    """The device on which `start` expects the model: a GPU, or -1 for the CPU."""

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Around loading the archive and running: what this executor needs of its process."""
        yield

    def start(self, predictor: Predictor, options: WorkerOptions) -> None:
        """Starts the workers, with a predictor whose model is on `loading_device`."""
        raise NotImplementedError

    def has_room(self) -> bool:
        """Whether another batch may be submitted now; this is what bounds the memory."""
        raise NotImplementedError

    def is_idle(self) -> bool:
        """Whether every submitted batch has been collected."""
        raise NotImplementedError

    def submit(self, batch: Batch) -> None:
        """Takes a batch. Indices must rise from call to call."""
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
