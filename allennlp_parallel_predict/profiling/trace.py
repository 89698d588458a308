"""A timeline in Chrome's trace event format, for Perfetto (ui.perfetto.dev) or chrome://tracing."""

from typing import Any, Dict, Iterator, List

from allennlp_parallel_predict.profiling.recorder import RunProfile, Timeline

Event = Dict[str, Any]


def chrome_trace(profile: RunProfile) -> Dict[str, Any]:
    """
    One track for the parent and one for each worker. A worker's batches are spans, and its stages
    are spans inside them, with the input lines as arguments.
    """
    tracks = sorted(profile.workers.values(), key=lambda track: track.start)
    pid, origin = profile.parent.pid, profile.parent.start
    events: List[Event] = [_name("process_name", pid, 0, name="allennlp parallel-predict")]
    for number, track in enumerate([profile.parent, *tracks]):
        title = "parent" if number == 0 else f"worker {number - 1} (process {track.pid})"
        events.append(_name("thread_name", pid, number, name=title))
        events.append(_name("thread_sort_index", pid, number, sort_index=number))
        events += _events(track, pid, number, origin)
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _name(what: str, pid: int, tid: int, **args: Any) -> Event:
    return {"name": what, "ph": "M", "pid": pid, "tid": tid, "args": args}


def _events(track: Timeline, pid: int, tid: int, origin: float) -> Iterator[Event]:
    # Of two that begin together the longer one is the outer one.
    spans = sorted([*track.spans, *track.batches], key=lambda item: (item.start, -item.end))
    for item in spans:
        yield {
            "name": item.stage,
            "cat": "batch" if item.stage.startswith("batch ") else "stage",
            "ph": "X",
            "ts": round((item.start - origin) * 1e6, 3),
            "dur": round((item.end - item.start) * 1e6, 3),
            "pid": pid,
            "tid": tid,
            "args": {"lines": item.lines} if item.lines else {},
        }
