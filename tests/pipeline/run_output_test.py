"""What an earlier run has left of an output decides what becomes of it."""

from contextlib import closing

import pytest

from allennlp_parallel_predict.common.errors import ResumeError, SettingsError
from allennlp_parallel_predict.data.sinks import OutputPosition
from allennlp_parallel_predict.pipeline.config import RunConfig
from allennlp_parallel_predict.pipeline.run_output import RunOutput
from allennlp_parallel_predict.settings import build_settings, read_settings

SETTINGS = build_settings(read_settings(overrides='{"executor": "in_process"}'))


@pytest.fixture
def opened(tmp_path):
    """Opens the output of a run with some flags."""
    (tmp_path / "in").write_text("1\n2\n")

    def open_output(**flags):
        paths = (str(tmp_path / name) for name in ("archive", "in", "out"))
        return closing(RunOutput(RunConfig(*paths, silent=True, **flags), SETTINGS))

    return open_output


def test_an_output_is_complete_unless_it_has_been_claimed(opened, tmp_path):
    (tmp_path / "out").write_text("of an earlier run")
    with opened(resume=True) as output:
        assert output.is_complete()
    with opened() as output:
        assert not output.is_complete()
        output.claim()
    assert (tmp_path / "out").read_text() == "of an earlier run"
    with opened() as output, pytest.raises(SettingsError, match="0 input lines are finished"):
        output.is_complete()
    with opened(resume=True) as output:
        assert not output.is_complete() and output.start == OutputPosition()


def test_it_begins_once(opened, tmp_path):
    with opened() as output:
        assert not output.is_complete()
        assert not (tmp_path / "out").exists()
        assert output.begin() is output.begin()
        assert (tmp_path / "out").read_bytes() == b""
        assert (tmp_path / "out.checkpoint").exists()


def test_an_output_that_has_changed_is_refused(opened, tmp_path):
    with opened() as output:
        output.is_complete()
        output.start = OutputPosition(output_bytes=3, output_checksum=5)
        output.claim()
    (tmp_path / "out").write_text("abc")
    with opened(resume=True) as output, pytest.raises(ResumeError, match="has changed since"):
        output.is_complete()


def test_inputs_that_are_finished_are_not_opened(opened, tmp_path):
    (tmp_path / "more").write_text("3\n")
    with opened(more_inputs=[str(tmp_path / "more")], input_format="lines") as output:
        output.start = OutputPosition(lines=0, positions=0, predictions=2, inputs=1)
        output.open_inputs(None, 1)
        assert [[item.value for item in source] for source in output.sources] == [["3\n"]]
