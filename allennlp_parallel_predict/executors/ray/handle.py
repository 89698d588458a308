"""An actor of a Ray cluster, as the parent sees it."""

from typing import Any, Dict, Optional

from allennlp_parallel_predict.common.errors import WorkerDied, WorkerError, WorkerTimeout
from allennlp_parallel_predict.common.messages import BatchResult
from allennlp_parallel_predict.executors.base_pool import WorkerHandle
from allennlp_parallel_predict.executors.ray.actor import ActorIdentity, clock
from allennlp_parallel_predict.executors.retries import Task


class ActorHandle(WorkerHandle):
    """An actor, or the request for one."""

    def __init__(self, actor: Any, deaths_in_a_row: int) -> None:
        super().__init__()
        self.actor = actor
        self.deaths_in_a_row = deaths_in_a_row
        self.identity: Optional[ActorIdentity] = None
        """What it says of itself, when it has its model."""
        self.errors: Dict[Task, BaseException] = {}
        """Those of its tasks of which Ray says that they will not be finished."""
        self.timed_out = False

    def is_dead(self) -> bool:
        """Not before: what it finished before it died may still be on its way."""
        return bool(self.errors) and len(self.errors) == len(self.tasks)

    def describe_death(self, cause: BaseException, batch_timeout: Optional[float]) -> WorkerError:
        where = "before it had its model"
        if self.tasks:
            where = f"while it predicted {self.tasks[0].batch.describe()}"
        if self.timed_out:
            return WorkerTimeout(
                f"{self} was over the batch_timeout of {batch_timeout} s and was ended {where}"
            )
        # Ray's last line says what happened, and then what may have been the reason.
        what = (str(cause).strip().splitlines() or [repr(cause)])[-1]
        return WorkerDied(f"{self} ended {where} ({what.split(' There are some')[0]})")

    def __str__(self) -> str:
        return str(self.identity or "a worker")


def in_our_time(result: BatchResult, worker: ActorHandle) -> BatchResult:
    """The result, its profile with the times of this machine's clock."""
    if result.profile is None or worker.identity is None:
        return result
    shift = worker.identity.clock - clock()
    times = {name: getattr(result.profile, name) + shift for name in ("since", "started", "ended")}
    spans = [
        part._replace(start=part.start + shift, end=part.end + shift)
        for part in result.profile.spans
    ]
    return result._replace(profile=result.profile._replace(spans=spans, **times))
