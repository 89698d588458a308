"""How far predictions in fewer bits are from those in fp32: measured on a sample of the input."""

import json
import math
from typing import Any, Dict, Optional

from allennlp.common import Params
from allennlp.predictors import Predictor

from allennlp_parallel_predict.common.differences import Differences
from allennlp_parallel_predict.common.errors import SettingsError, shown
from allennlp_parallel_predict.common.messages import OnError, Precision, WorkerOptions
from allennlp_parallel_predict.common.recorder import Recorder, in_stage, recording
from allennlp_parallel_predict.common.stages import COMPARING
from allennlp_parallel_predict.data.limits import sample
from allennlp_parallel_predict.data.sources import Source, reads_once
from allennlp_parallel_predict.executors.base import Executor
from allennlp_parallel_predict.pipeline.trial import Trial, numbered
from allennlp_parallel_predict.settings import Settings


class Agreement:
    """What two predictions of a sample have shown, of which the first was in fp32."""

    def __init__(self, precision: Precision, expected: Trial, found: Trial) -> None:
        differences = Differences()
        for position, text in expected.outputs.items():
            differences.add(_parsed(text), _parsed(found.outputs.get(position)))
        labels = differences.labels
        field = min(labels, key=differences.share, default=None)
        self.figures: Dict[str, Any] = {
            "precision": precision.value,
            "inputs": len(expected.outputs),
            "field": field,  # where the fewest labels are equal
            "labels": 1.0 if field is None else differences.share(field),
            "largest_difference": differences.largest,
            "sequences": len(differences.sequences),
            "equal_sequences": sum(differences.sequences),
            "failed": len(expected.outputs.keys() - found.outputs.keys()),
        }
        errors = [found.failures[n].error for n in found.failures if n not in expected.failures]
        self._error = f"{errors[0].type_name}: {shown(errors[0].message)}" if errors else ""

    def __str__(self) -> str:
        of = self.figures
        text = f"{of['precision']}: {of['labels']:.2%} of the labels as in fp32"
        text += f" (field {of['field']}), numbers differ by at most {of['largest_difference']:.1e}"
        if of["sequences"]:
            text += f", {of['equal_sequences']:,} of {of['sequences']:,} sequences equal"
        if self._error:
            text += f", {of['failed']:,} inputs fail that do not in fp32 ({self._error})"
        return f"{text}; measured on {of['inputs']:,} inputs"


def check_sample(settings: Settings, input_file: str) -> None:
    """Whether the input of a run can be read before it, if it has to be."""
    is_measured = settings.precision != Precision.FP32 and settings.precision_sample > 0
    if is_measured and reads_once(input_file):
        raise SettingsError(
            f"precision {settings.precision.value!r} needs an input that is a file, as a sample of "
            "it is predicted in fp32 first: give one, or set precision_sample to 0"
        )


@in_stage(COMPARING)
def compare_precision(
    predictor: Predictor, source: Source, settings: Settings, figures: Dict[str, Any]
) -> str:
    """Says how far a precision agrees with fp32; raises a `SettingsError` if it is too little."""
    agreement = _measured(predictor, source, settings)
    if agreement is None:
        return f"{settings.precision.value}: agreement with fp32 was not measured"
    figures["agreement"] = agreement.figures
    least = settings.precision_min_agreement
    if agreement.figures["labels"] < least:
        raise SettingsError(
            f"{agreement}. precision_min_agreement asks for {least:.2%}: choose another precision "
            "or, if this is good enough, a lower precision_min_agreement. Nothing was written."
        )
    return str(agreement)


def _measured(predictor: Predictor, source: Source, settings: Settings) -> Optional[Agreement]:
    """Predicts a sample twice, by one worker each; `None` if the sample is empty."""
    inputs = sample(source, settings.precision_sample) if settings.precision_sample else []
    # Complete outputs, whatever is written of them.
    options = WorkerOptions(OnError.SKIP, encoding=source.encoding, exact=False)

    def predict(precision: Precision) -> Trial:
        executor = _one_worker(settings.executor)
        batches = settings.batching.batches(inputs, source.kind)
        taken = numbered(batch for batch in batches if batch is not None)
        with executor.preparing(), recording(Recorder()):  # it is no part of a profile
            executor.start(predictor, options._replace(precision=precision))
            return Trial(executor, taken, math.inf)

    if not inputs:
        return None
    return Agreement(settings.precision, predict(Precision.FP32), predict(settings.precision))


def _one_worker(executor: Executor) -> Executor:
    settings: Dict[str, Any] = {**executor.settings(), "num_workers": 1}
    if "threads_per_worker" in settings:
        settings["threads_per_worker"] = executor.threads()
    return Executor.from_params(Params(settings))


def _parsed(text: Any) -> Any:
    """An output; one that is no JSON is a label as a whole."""
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text
