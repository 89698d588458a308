"""The seam between an executor and its workers, wherever they run."""

import time
from abc import ABC, abstractmethod
from collections import deque
from typing import Deque, List, NamedTuple, Optional, Sequence, Union

from allennlp_parallel_predict.common.errors import WorkerError
from allennlp_parallel_predict.common.recorder import current, stage
from allennlp_parallel_predict.common.stages import SENDING
from allennlp_parallel_predict.executors.retries import Task

PREFETCH = 2
"""Batches that a worker has: the one that it computes and, so that it never waits, the next."""


class WorkerHandle:
    """A worker, and what it has been given."""

    def __init__(self) -> None:
        self.tasks: Deque[Task] = deque()
        """Sent to it and not finished, in this order."""
        self.finished = 0
        """The batches that its process has finished."""
        self.deaths_in_a_row = 0
        """Without a suspect or a finished batch in between."""
        self.since = time.monotonic()
        """When it showed life, or was given something while it had nothing."""

    def start_waiting(self) -> None:
        """The next batch's time begins."""
        self.since = time.monotonic()

    def finish_task(self, task: Task) -> None:
        """It has finished one of its tasks."""
        self.tasks.remove(task)
        self.finished += 1
        self.deaths_in_a_row = 0
        self.start_waiting()


class WorkerDeath(NamedTuple):
    """How a worker ended."""

    error: WorkerError
    """What happened, in words."""
    suspect: Optional[Task] = None
    """What it died over, if it was at work and that is clear."""
    is_exonerated: bool = False
    """Whether its end says nothing of the worker itself."""


class WorkerEvent(NamedTuple):
    """A batch that a worker has finished, or the worker's death."""

    worker: WorkerHandle
    task: Optional[Task] = None
    message: Union[bytes, memoryview] = b""
    """The result of the task."""
    death: Optional[WorkerDeath] = None


class BaseWorkerPool(ABC):
    """
    What an executor asks of its workers. A subclass decides what they are and how they are talked
    to; what becomes of a batch whose worker died is the executor's to decide.
    """

    prefetch: int = PREFETCH
    """The batches that a worker may have."""
    restarts: int = 0
    """The workers that were replaced because they died."""

    @property
    @abstractmethod
    def workers(self) -> Sequence[WorkerHandle]:
        """Those that there are now."""

    def hand_out(self, waiting: Deque[Task], reserve: int) -> None:
        """
        Gives tasks to workers that may have more.

        # Parameters

        waiting : `Deque[Task]`
            The tasks; those that are given are taken off its left end.
        reserve : `int`
            The number of tasks that are kept for workers that have nothing.
        """
        while waiting:
            worker = self._free_worker(self.prefetch if len(waiting) > reserve else 1)
            if worker is None:
                return
            task = waiting.popleft()
            if not worker.tasks:
                worker.start_waiting()
            worker.tasks.append(task)
            with stage(SENDING):
                message = task.message()
                current().count_sent(len(message))
                self._send(worker, task, message)

    def _free_worker(self, prefetch: int) -> Optional[WorkerHandle]:
        """Of the workers that have less than `prefetch` tasks, the one that has the fewest."""
        free = [w for w in self.workers if len(w.tasks) < prefetch and self._may_take(w)]
        return min(free, key=lambda worker: len(worker.tasks)) if free else None

    @abstractmethod
    def _may_take(self, worker: WorkerHandle) -> bool:
        """Whether a worker can be given a task, however many it has."""

    @abstractmethod
    def _send(self, worker: WorkerHandle, task: Task, message: bytes) -> None:
        """Sends a task to a worker, without waiting."""

    @abstractmethod
    def wait(self, timeout: Optional[float], wake: Sequence[int]) -> List[WorkerEvent]:
        """
        Waits until something happens, a descriptor of `wake` can be read, or the time is up. The
        tasks of the events that it returns are no longer among those of their workers.
        """

    @abstractmethod
    def replace(self, worker: WorkerHandle) -> None:
        """Puts another worker in the place of one that has died, and whose `tasks` are empty."""

    def keep_processes(self) -> None:
        """From here on no process is replaced that lives: the model's state is in it."""

    def close(self) -> None:
        """Lets the workers finish, for a while, and ends them."""
        self.kill()

    @abstractmethod
    def kill(self) -> None:
        """Ends the workers at once."""
