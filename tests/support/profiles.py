"""Profiled runs of tiny predictors on real executors."""

import os
from typing import Any, Dict, List, NamedTuple, Optional

from allennlp_parallel_predict.common.messages import OnError, WorkerOptions
from allennlp_parallel_predict.common.recorder import Recorder, current, recording, stage
from allennlp_parallel_predict.common.stages import ENDING, STARTING_WORKERS
from allennlp_parallel_predict.data.batching import Batching, InOrderBatching
from allennlp_parallel_predict.data.files import OutputFile
from allennlp_parallel_predict.data.sinks import Sink
from allennlp_parallel_predict.data.sources import Source
from allennlp_parallel_predict.executors import Executor, ProcessPoolExecutor
from allennlp_parallel_predict.pipeline.pipeline import Pipeline
from allennlp_parallel_predict.pipeline.progress import Progress
from allennlp_parallel_predict.pipeline.signals import Interrupts
from allennlp_parallel_predict.profiling.diagnosis import diagnose
from allennlp_parallel_predict.profiling.recorder import RunProfile
from allennlp_parallel_predict.profiling.report import build_report
from allennlp_parallel_predict.settings import Settings
from tests.fixtures.timed_predictors import TimedPredictor
from tests.support.faults import ListSource


class Profiled(NamedTuple):
    report: Dict[str, Any]
    profile: Optional[RunProfile]
    output: str

    @property
    def rules(self) -> List[str]:
        return [finding["rule"] for finding in self.report["diagnosis"]]

    @property
    def diagnosed_again(self) -> List[str]:
        """The rules that apply to the report as a test has changed it."""
        return [finding.rule for finding in diagnose(self.report)]


def profiled(
    inputs: Any,
    folder: Any,
    batch_size: int = 4,
    predictor: Any = None,
    executor: Optional[Executor] = None,
    batching: Optional[Batching] = None,
    profile: Optional[RunProfile] = None,
    is_profiled: bool = True,
    on_error: str = "raise",
    **pool: Any,
) -> Profiled:
    """Predicts with a real pool of two workers, or as `pool` says, and a profile."""
    executor = executor or ProcessPoolExecutor(**{"num_workers": 2, **pool})
    batching = batching or InOrderBatching(batch_size)
    source = inputs if isinstance(inputs, Source) else ListSource(inputs)
    if is_profiled:
        profile = profile or RunProfile(with_timeline=True)
    output = os.path.join(folder, "output")
    sink = Sink(OutputFile(output), print_to_console=False, on_error=OnError(on_error))
    with executor.preparing(), recording(profile or Recorder()):
        options = WorkerOptions(OnError(on_error), False, profile=current().detail)
        try:
            with stage(STARTING_WORKERS):
                executor.start(predictor or TimedPredictor(), options)
            progress = Progress("never", [source], False)
            Pipeline(
                source, batching, executor, sink, progress=progress, interrupts=Interrupts()
            ).run()
            sink.close()
            with stage(ENDING):
                executor.close()
        except BaseException:
            executor.kill()
            raise
        finally:
            if profile is not None:
                profile.finish()
    report = build_report(profile, Settings(executor, batching)) if profile is not None else {}
    with open(output) as file:
        return Profiled(report, profile, file.read())
