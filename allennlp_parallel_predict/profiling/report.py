"""A profile as a dictionary, which is what `--profile FILE.json` writes."""

from typing import Any, Dict, List, Sequence

import numpy

from allennlp_parallel_predict.common.machine import has_slow_mkl, usable_cpus
from allennlp_parallel_predict.common.stages import PARENT_STAGES, STARTING, WAITING, WORKER_STAGES
from allennlp_parallel_predict.profiling.diagnosis import diagnose
from allennlp_parallel_predict.profiling.memory import total_memory
from allennlp_parallel_predict.profiling.recorder import RunProfile, Timeline
from allennlp_parallel_predict.settings import Settings

Report = Dict[str, Any]
"""All times are seconds, all sizes bytes, all shares between 0 and 1."""
VERSION = 1
"""Of the format, for `compare`."""
_PLAIN = (int, float, str, bool, type(None))


def build_report(profile: RunProfile, settings: Settings) -> Report:
    """The report of a run with these settings, whose profile is finished."""
    executor, batching = settings.executor, settings.batching.settings()
    # Of 0 lines there are no tracks; then there is nothing to be said of workers.
    tracks = sorted(profile.workers.values(), key=lambda track: track.start)
    workers = _workers(profile, tracks, executor.num_workers)
    since, end = profile.predicted()
    lines = sum(track.lines for track in tracks)
    parent = _process(profile, profile.parent, profile.cpu_seconds, PARENT_STAGES)
    report = {
        "version": VERSION,
        "executor": executor.describe(),
        "in_process": profile.parent.pid in profile.workers,
        "num_workers": executor.num_workers,
        "threads_per_worker": max((t.last.threads for t in tracks if t.last), default=0),
        "cpus": executor.cpus or len(usable_cpus()),
        "slow_mkl": settings.is_exact and has_slow_mkl(),
        "precision": settings.precision.value,
        "batching": {k: v for k, v in batching.items() if isinstance(v, _PLAIN)},
        "seconds": {
            "wall": parent["seconds"],
            "start_up": since - profile.parent.start,
            "predicting": end - since,
        },
        "lines": lines,
        "batches": sum(len(track.seconds) for track in tracks),
        "failures": profile.failures,
        "restarts": executor.counts().restarts,
        "lines_per_second": lines / (end - since) if end > since else 0.0,
        "stages": _stages(tracks, WORKER_STAGES),
        "parent": parent,
        "workers": workers,
        # Processes that were replaced, or never got a batch, were workers together or not at all.
        "utilisation": sum(worker["utilisation"] for worker in workers) / executor.num_workers,
        "idle_at_the_end": sum(worker["idle_at_the_end"] for worker in workers),
        **_batches(profile, tracks),
        "cpu_seconds": profile.cpu_seconds
        + sum(w["cpu_seconds"] for w in workers if w["pid"] != profile.parent.pid),
        "memory": total_memory(profile.memory),
        "swap": {"in": profile.swapped[0], "out": profile.swapped[1]},
    }
    return {**report, "diagnosis": [finding._asdict() for finding in diagnose(report)]}


def _process(
    profile: RunProfile, track: Timeline, cpu_seconds: float, order: Sequence[str]
) -> Dict[str, Any]:
    return {
        "pid": track.pid,
        "seconds": track.end - track.start,
        "stages": _stages([track], order),
        "cpu_seconds": cpu_seconds,
        "memory": profile.memory.get(track.pid),
    }


def _workers(profile: RunProfile, tracks: List[Timeline], number: int) -> List[Dict[str, Any]]:
    since, end = profile.predicted()
    last_ones = sorted(tracks, key=lambda track: track.end)[-number:]
    workers = []
    for name, track in zip(_names(tracks).values(), tracks):
        last, not_at_work = track.last, (WAITING, STARTING)
        at_work = track.end - track.start - sum(track.stages.get(s, 0.0) for s in not_at_work)
        worker = _process(profile, track, last.cpu_seconds if last else 0.0, WORKER_STAGES)
        worker.update(
            name=name,
            # Of the time in which there was something to predict.
            utilisation=min(1.0, at_work / (end - since)) if end > since else 0.0,
            batches=len(track.seconds),
            lines=track.lines,
            lines_per_second=track.lines / at_work if at_work > 0 else 0.0,
            median_batch_seconds=float(numpy.median(track.seconds)) if track.seconds else 0.0,
            # Of those that were the workers at the end, and not of one that was replaced before.
            idle_at_the_end=max(0.0, end - last.ended) if last and track in last_ones else 0.0,
            cpu_wait_seconds=last.cpu_wait_seconds if last else 0.0,
        )
        workers.append(worker)
    return workers


def _names(tracks: List[Timeline]) -> Dict[int, str]:
    return {track.pid: f"worker {number}" for number, track in enumerate(tracks)}


def _batches(profile: RunProfile, tracks: List[Timeline]) -> Dict[str, Any]:
    """What is known of batches, whoever predicted them."""
    names, seconds = _names(tracks), [value for track in tracks for value in track.seconds]
    times = {f"p{p}": float(numpy.percentile(seconds, p)) for p in (50, 90, 99) if seconds}
    slowest = [
        {
            "seconds": slow.seconds,
            "worker": names[slow.worker],
            "inputs": slow.inputs,
            "lines": slow.lines,
            "tokens": (
                {
                    "shortest": min(slow.lengths),
                    "mean": sum(slow.lengths) / len(slow.lengths),
                    "longest": max(slow.lengths),
                }
                if slow.lengths
                else None
            ),
        }
        for _, _, slow in sorted(profile.slowest, reverse=True)
    ]
    return {
        "batch_seconds": {**times, "max": max(seconds)} if seconds else {},
        "slowest_batches": slowest,
        "padding": {
            "share": 1 - profile.tokens / profile.padded if profile.padded else 0.0,
            "tokens": profile.tokens,
            "with_padding": profile.padded,
            "skipped": any(track.last and track.last.skips_padding for track in tracks),
        },
        "bytes": {
            "to_workers": profile.bytes_to_workers,
            "from_workers": profile.bytes_from_workers,
        },
    }


def _stages(tracks: Sequence[Timeline], order: Sequence[str]) -> Dict[str, float]:
    """The seconds of each stage, of all tracks together."""
    return {
        stage: sum(track.stages.get(stage, 0.0) for track in tracks)
        for stage in order
        if any(stage in track.stages for track in tracks)
    }
