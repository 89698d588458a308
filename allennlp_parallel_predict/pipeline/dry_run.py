"""What a run would do, without writing anything: `--dry-run`."""

import json
import time
from typing import Any, Dict, List, Optional

from allennlp_parallel_predict.common.errors import shown
from allennlp_parallel_predict.common.messages import Batch, OnError
from allennlp_parallel_predict.data.inputs import to_block
from allennlp_parallel_predict.data.limits import sample
from allennlp_parallel_predict.pipeline.progress import clock
from allennlp_parallel_predict.pipeline.run import PredictRun, tell
from allennlp_parallel_predict.pipeline.run_output import RunOutput
from allennlp_parallel_predict.pipeline.trial import Trial, mixed_batches, numbered

_SECONDS = 10.0
"""How long the sample is predicted, unless it ends before."""


class DryRun(PredictRun):
    """
    Checks what a run would check, loads the archive, predicts the first input in one worker and a
    sample of the input in all of them, and prints what can be expected of the run.
    """

    def _run(self, outputs: List[RunOutput]) -> int:
        settings, executor = self._settings, self._settings.executor
        started = time.monotonic()
        with executor.preparing():
            predictor = self._load()
            for output in outputs:
                output.open_inputs(predictor, self._settings.batching.span())
            sources = [source for output in outputs for source in output.sources]
            source = sources[0]
            self._compare_precision(predictor, source)
            inputs = sample(source)
            if not inputs:
                tell(f"there is nothing to predict in {outputs[0].config.input_file}")
                return 0
            # What fails is counted; the others say how long the run takes.
            options = self._options(source)._replace(on_error=OnError.SKIP, echo_inputs=False)
            executor.start(predictor, options)
            start_up = time.monotonic() - started
            first = Batch(0, source.kind, *to_block(inputs[:1]))
            batches = mixed_batches(settings.batching, inputs, source.kind)
            trial = Trial(executor, numbered([first, *batches]), _SECONDS, waits=True)
        text = trial.outputs.get(first.positions[0])
        if text is not None:
            print(f"prediction of input line {first.line_numbers[0]}:\n{text.rstrip()}\n")
        if self._agreement:
            print(f"{self._agreement}\n")
        print(f"settings:\n{json.dumps(self._used(), indent=2)}\n")
        totals = [source.total() for source in sources]
        left = sum(total or 0 for total in totals) - sum(o.start.positions for o in outputs)
        self._print_estimate(trial, start_up, None if None in totals else left)
        return self._report_failures(trial)

    def _used(self) -> Dict[str, Any]:
        """The settings of the run, in the form of `--parallel-config`."""
        settings, executor = self._settings, self._settings.executor
        used = executor.settings()
        found = {"num_workers": executor.num_workers, "threads_per_worker": executor.threads()}
        return {
            "executor": {**used, **{key: found[key] for key in found.keys() & used.keys()}},
            "batching": settings.batching.settings(),
            "exact": settings.is_exact,
            "precision": settings.precision,
            "on_error": settings.on_error,
            "max_errors": settings.max_errors,
        }

    def _print_estimate(self, trial: Trial, start_up: float, lines: Optional[int]) -> None:
        (since, _), *others = trial.arrivals
        counted = sum(size for _, size in others) or 1
        # Without the first input, unless it was the only one.
        rate = counted / max(1e-9, trial.seconds - (since if others else 0.0))
        print(
            f"sample: {trial.inputs():,} inputs from all over the file in "
            f"{trial.seconds:.1f} s, {rate:,.1f} lines/s, {self._settings.executor.describe()}"
        )
        memory = f"{trial.memory / 2**20:,.0f} MB of memory in all processes"
        if lines is None:
            print(f"estimate: {memory}; how many lines there are is not known in advance")
            return
        size = sum(len(text) for text in trial.outputs.values()) / max(1, len(trial.outputs))
        print(
            f"estimate: about {lines:,} lines in {clock(start_up + lines / rate)} (min:s), with "
            f"{start_up:.1f} s of loading; {memory}; {lines * size / 2**20:,.1f} MB of output"
        )

    def _report_failures(self, trial: Trial) -> int:
        failures = sorted(trial.failures.items())
        if failures:
            line, (_, error) = failures[0]
            tell(
                f"{len(failures)} of {trial.inputs()} inputs failed, the first "
                f"by input line {line}: {error.type_name}: {shown(error.message)} "
                f"(--on-error {self._settings.on_error})"
            )
        return len(failures)
