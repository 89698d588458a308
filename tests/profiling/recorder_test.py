"""What the parent notes of a run."""

from allennlp_parallel_predict.common import stages
from allennlp_parallel_predict.common.stopwatch import Span
from allennlp_parallel_predict.profiling.recorder import RunProfile, Timeline


def test_a_track_stays_small():
    track = Timeline(1, 0.0)
    for n in range(300):
        track.batches.append(Span(f"batch {n}", n, n + 1))
        track.charge({}, [Span("a", n + k / 100, n + (k + 1) / 100) for k in range(100)], n + 1)
    assert len(track.spans) <= 20_000
    assert track.spans[-1].end == 300
    assert track.batches == []  # merged spans may reach over their ends


def test_imports_are_counted_once_in_a_process():
    first = RunProfile(from_process_start=True)
    second = RunProfile(from_process_start=True)
    for profile in (second, first):
        profile.finish()
    assert stages.IMPORTS not in second.parent.stages
