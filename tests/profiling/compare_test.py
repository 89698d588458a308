"""Two reports side by side."""

import pytest

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.executors import InProcessExecutor
from allennlp_parallel_predict.profiling.compare import compare, read_report
from tests.support.profiles import profiled


def test_two_side_by_side(ran, tmp_path):
    executor = InProcessExecutor()
    single = profiled([{"forward": 0.002}] * 80, tmp_path, executor=executor)
    text = compare(single.report, ran.report, "one.json", "pool.json")
    assert "one.json: 80 lines, in this process" in text
    forward = next(line for line in text.splitlines() if line.strip().startswith("forward"))
    a, b, ratio = map(float, forward.split()[1:])
    assert ratio == pytest.approx(b / a, abs=0.1)
    (tmp_path / "no.json").write_text("{}")
    with pytest.raises(SettingsError, match="no.json is not what --profile"):
        read_report(str(tmp_path / "no.json"))
