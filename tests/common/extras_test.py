"""Libraries that only some features need."""

import json
import sys

import pytest

from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.common.extras import import_extra


def test_what_is_installed_is_imported():
    assert import_extra("json", "plot", "--plot") is json


def test_what_is_not_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SettingsError) as caught:
        import_extra("matplotlib", "plot", "--profile-plot")
    assert str(caught.value) == (
        "--profile-plot needs matplotlib: pip install 'allennlp-parallel-predict[plot]'"
    )
