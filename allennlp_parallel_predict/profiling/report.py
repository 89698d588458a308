"""A profile as a dictionary, which is what `--profile FILE.json` writes."""

from typing import Any, Dict, Sequence

import numpy

from allennlp_parallel_predict.common.machine import has_slow_mkl, usable_cpus
from allennlp_parallel_predict.common.stages import PARENT_STAGES, STARTING, WAITING, WORKER_STAGES
from allennlp_parallel_predict.profiling.diagnosis import diagnose
from allennlp_parallel_predict.profiling.memory import total_memory
from allennlp_parallel_predict.profiling.recorder import RunProfile, SlowBatch, Timeline
from allennlp_parallel_predict.settings import Settings

Report = Dict[str, Any]

VERSION = 1
"""Of the format, for `compare`."""
_PERCENTILES = (50, 90, 99)


def build_report(profile: RunProfile, settings: Settings) -> Report:
    """
    # Parameters

    profile : `RunProfile`
        The profile of a run, which is finished.
    settings : `Settings`
        What it ran with.

    # Returns

    `Report`
        The report; all times are seconds, all sizes bytes, all shares between 0 and 1.
    """
    executor, batching = settings.executor, settings.batching
    # Of 0 lines there are no tracks; then there is nothing to be said of workers.
    tracks = sorted(profile.workers.values(), key=lambda track: track.start)
    names = {track.pid: f"worker {number}" for number, track in enumerate(tracks)}
    since, end = profile.predicted()
    predicting = end - since
    lines = sum(track.lines for track in tracks)
    last_ones = sorted(tracks, key=lambda track: track.end)[-executor.num_workers :]
    workers = [
        _worker(names[track.pid], track, profile, since, end, track in last_ones)
        for track in tracks
    ]
    stages = _sum_stages([track.stages for track in tracks])
    report = {
        "version": VERSION,
        "executor": executor.describe(),
        "in_process": any(track.pid == profile.parent.pid for track in tracks),
        "num_workers": executor.num_workers,
        "threads_per_worker": max((t.last.threads for t in tracks if t.last), default=0),
        "cpus": executor.cpus or len(usable_cpus()),
        "slow_mkl": settings.is_exact and has_slow_mkl(),
        "batching": _plain(batching.settings()),
        "seconds": {
            "wall": profile.parent.end - profile.parent.start,
            "start_up": since - profile.parent.start,
            "predicting": predicting,
        },
        "lines": lines,
        "batches": sum(len(track.seconds) for track in tracks),
        "failures": profile.failures,
        "restarts": executor.counts().restarts,
        "lines_per_second": lines / predicting if predicting else 0.0,
        "stages": _in_order(stages, WORKER_STAGES),
        "parent": {
            "pid": profile.parent.pid,
            "seconds": profile.parent.end - profile.parent.start,
            "stages": _in_order(profile.parent.stages, PARENT_STAGES),
            "cpu_seconds": profile.cpu_seconds,
            "memory": profile.memory.get(profile.parent.pid),
        },
        "workers": workers,
        # Processes that were replaced, or never got a batch, were workers together or not at all.
        "utilisation": sum(worker["utilisation"] for worker in workers) / executor.num_workers,
        "idle_at_the_end": sum(worker["idle_at_the_end"] for worker in workers),
        "padding": {
            **_padding(profile),
            "skipped": any(t.last and t.last.skips_padding for t in tracks),
        },
        "batch_seconds": _batch_seconds(tracks),
        "slowest_batches": [
            _slow_batch(slow, names) for _, _, slow in sorted(profile.slowest, reverse=True)
        ],
        "bytes": {
            "to_workers": profile.bytes_to_workers,
            "from_workers": profile.bytes_from_workers,
        },
        "cpu_seconds": profile.cpu_seconds
        + sum(w["cpu_seconds"] for w in workers if w["pid"] != profile.parent.pid),
        "memory": total_memory(profile.memory),
        "swap": {"in": profile.swapped[0], "out": profile.swapped[1]},
    }
    report["diagnosis"] = [finding._asdict() for finding in diagnose(report)]
    return report


def _worker(
    name: str, track: Timeline, profile: RunProfile, since: float, end: float, is_last: bool
) -> Dict[str, Any]:
    last = track.last
    waiting = track.stages.get(WAITING, 0.0)
    at_work = track.end - track.start - waiting - track.stages.get(STARTING, 0.0)
    return {
        "name": name,
        "pid": track.pid,
        "seconds": track.end - track.start,
        "stages": _in_order(track.stages, WORKER_STAGES),
        # Of the time in which there was something to predict.
        "utilisation": min(1.0, at_work / (end - since)) if end > since else 0.0,
        "batches": len(track.seconds),
        "lines": track.lines,
        "lines_per_second": track.lines / at_work if at_work > 0 else 0.0,
        "median_batch_seconds": float(numpy.median(track.seconds)) if track.seconds else 0.0,
        # Of those that were the workers at the end, and not of one that was replaced before.
        "idle_at_the_end": max(0.0, end - last.ended) if last is not None and is_last else 0.0,
        "cpu_seconds": last.cpu_seconds if last is not None else 0.0,
        "cpu_wait_seconds": last.cpu_wait_seconds if last is not None else 0.0,
        "memory": profile.memory.get(track.pid),
    }


def _padding(profile: RunProfile) -> Dict[str, Any]:
    share = 1 - profile.tokens / profile.padded if profile.padded else 0.0
    return {"share": share, "tokens": profile.tokens, "with_padding": profile.padded}


def _batch_seconds(tracks: Sequence[Timeline]) -> Dict[str, float]:
    seconds = numpy.array([value for track in tracks for value in track.seconds])
    if not len(seconds):
        return {}
    found = {f"p{p}": float(numpy.percentile(seconds, p)) for p in _PERCENTILES}
    return {**found, "max": float(seconds.max()), "mean": float(seconds.mean())}


def _slow_batch(slow: SlowBatch, names: Dict[int, str]) -> Dict[str, Any]:
    lengths = slow.lengths
    return {
        "seconds": slow.seconds,
        "worker": names[slow.worker],
        "inputs": slow.inputs,
        "lines": slow.lines,
        "tokens": (
            {"shortest": min(lengths), "mean": _mean(lengths), "longest": max(lengths)}
            if lengths
            else None
        ),
    }


def _sum_stages(all_stages: Sequence[Dict[str, float]]) -> Dict[str, float]:
    total: Dict[str, float] = {}
    for stages in all_stages:
        for stage, seconds in stages.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return total


def _in_order(stages: Dict[str, float], order: Sequence[str]) -> Dict[str, float]:
    return {stage: stages[stage] for stage in order if stage in stages}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _plain(values: Dict[str, Any]) -> Dict[str, Any]:
    kinds = (int, float, str, bool, type(None))
    return {k: v for k, v in values.items() if isinstance(v, kinds)}
