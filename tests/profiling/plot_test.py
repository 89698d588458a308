"""The timeline as a picture."""

import sys

import pytest

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.profiling.plot import check_plot, plot


@pytest.mark.parametrize("ending", ["png", "svg", "html"])
def test_the_plot(ran, tmp_path, ending):
    pytest.importorskip("matplotlib")
    path = tmp_path / f"profile.{ending}"
    plot(ran.profile, ran.report, str(path))
    begins = {"png": b"\x89PNG", "svg": b"<?xml", "html": b"<!DOCTYPE html>"}[ending]
    content = path.read_bytes()
    assert content.startswith(begins) and len(content) > 10_000
    if ending == "html":
        assert b"</svg>" in content and b"slowest batches" in content


def test_the_plot_needs_matplotlib_and_a_known_format(monkeypatch):
    with pytest.raises(SettingsError, match=".png, .svg, .html files, not x.gif"):
        check_plot("x.gif")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SettingsError, match=r"pip install .*\[plot\]"):
        check_plot("x.png")
