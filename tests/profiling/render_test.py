"""A report as a text."""

import json

from allennlp_parallel_predict.profiling.render import render


def test_it_is_json_and_a_text(ran):
    assert json.loads(json.dumps(ran.report)) == ran.report
    text = render(ran.report)
    for part in ("80 lines", "forward", "worker 1", "input lines 41-44", "Diagnosis"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 110
