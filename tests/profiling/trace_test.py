"""The timeline in the format of trace viewers."""

import json
from collections import defaultdict

from allennlp_parallel_predict.common import stages
from allennlp_parallel_predict.profiling.trace import chrome_trace


def test_the_trace(ran):
    trace = json.loads(json.dumps(chrome_trace(ran.profile)))
    names = {
        event["tid"]: event["args"]["name"]
        for event in trace["traceEvents"]
        if event["ph"] == "M" and event["name"] == "thread_name"
    }
    assert names[0] == "parent" and len(names) == 3
    tracks = defaultdict(list)
    for event in trace["traceEvents"]:
        assert event["ph"] in "MX" and isinstance(event["tid"], int)
        if event["ph"] == "X":
            assert event["ts"] >= 0 and event["dur"] >= 0
            tracks[event["tid"]].append(event)
    for events in tracks.values():
        _assert_nested(events)
    batches = [e for events in tracks.values() for e in events if e["cat"] == "batch"]
    assert len(batches) == 20
    assert {"lines": "input lines 41-44"} in [event["args"] for event in batches]
    inside = [e for e in tracks[1] + tracks[2] if e["name"] == stages.FORWARD]
    assert "input lines 41-44" in [event["args"]["lines"] for event in inside]


def _assert_nested(events):
    """Slices of one track lie beside or inside each other."""
    ends = []
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        while ends and ends[-1] <= event["ts"] + 0.01:
            ends.pop()
        end = event["ts"] + event["dur"]
        assert not ends or end <= ends[-1] + 0.01
        ends.append(end)
