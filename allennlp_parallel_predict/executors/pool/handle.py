"""A place in a pool of processes, and the process that fills it now."""

import signal
from typing import Optional

from overrides import overrides

from allennlp_parallel_predict.common.errors import WorkerDied, WorkerError, WorkerTimeout
from allennlp_parallel_predict.executors.base_pool import WorkerDeath, WorkerHandle
from allennlp_parallel_predict.executors.pool.worker_process import WorkerProcess
from allennlp_parallel_predict.executors.retries import Task

_QUIET = 60.0
"""Seconds after which a worker that shows no life is reported; doubled each time."""


class ProcessHandle(WorkerHandle):
    """A place in the pool, and the process that fills it now."""

    def __init__(self, number: int, process: WorkerProcess) -> None:
        super().__init__()
        self.number = number
        self.fill(process)

    def fill(self, process: WorkerProcess) -> None:
        self.process = process
        self.is_ready = False
        self.finished = 0
        self.kill_at: Optional[float] = None
        self.overdue: Optional[Task] = None
        self.start_waiting()

    @overrides
    def start_waiting(self) -> None:
        super().start_waiting()
        self.report_after = _QUIET

    def is_unclear(self, group_size: int) -> bool:
        """Whether it was perhaps at several batches at once. The first is always by itself."""
        is_at_work = self.is_ready and bool(self.tasks)
        return is_at_work and group_size > 1 and self.finished > 0 and not self.tasks[0].is_alone

    def death(self, is_unclear: bool, batch_timeout: Optional[float]) -> WorkerDeath:
        """How its process ended; `is_unclear` is what `is_unclear` said before."""
        error = self._error(is_unclear, batch_timeout)
        suspect = self._suspect()
        # Any of several may have been it, and will be found by itself.
        return WorkerDeath(error, None if is_unclear else suspect, is_unclear)

    def _suspect(self) -> Optional[Task]:
        """What the process was at when it ended."""
        if not self.is_ready or not self.tasks:
            return None
        if self.kill_at is not None and self.tasks[0] is not self.overdue:
            return None  # it finished the one that took too long before it was ended
        return self.tasks[0]

    def _error(self, is_unclear: bool, batch_timeout: Optional[float]) -> WorkerError:
        where = "before it had its model"
        if self.is_ready:
            where = "between two batches"
            if self.tasks:
                where = f"while it predicted {self.tasks[0].batch.describe()}"
                where += " or one of the next" if is_unclear else ""
        if self.kill_at is not None:
            return WorkerTimeout(
                f"{self} was over the batch_timeout of {batch_timeout} s and was ended {where}"
            )
        how = describe_end(self.process)
        if self.process.channel.is_garbled:
            how = "was ended as something wrote into its connection with the parent"
        return WorkerDied(f"{self} {how} {where}")

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.process.pid})"


def describe_end(process: WorkerProcess) -> str:
    """How a process ended, in words."""
    status = process.poll()
    if status is None or status >= 0:
        return f"ended with exit status {status}" if status else "ended before its work was done"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = ", perhaps for want of memory" if -status == signal.SIGKILL else ""
    return f"was ended by {name}{hint}"
