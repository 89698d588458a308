"""Flags become the fields of a run's configuration under their own names."""

import argparse
import dataclasses

import pytest

from allennlp_parallel_predict.commands import flags
from allennlp_parallel_predict.pipeline.config import RunConfig
from allennlp_parallel_predict.settings import build_settings, read_settings

OF_SETTINGS = {"num_workers", "parallel_overrides", "on_error", "max_errors", "progress"}


def groups():
    return [vars(flags)[name] for name in vars(flags) if name.startswith("add_")]


@pytest.mark.parametrize("add", groups(), ids=lambda add: add.__name__)
def test_each_is_a_field_of_the_configuration_or_of_the_settings(add):
    parser = argparse.ArgumentParser()
    add(parser.add_argument_group("ours"))
    fields = {field.name: field.default for field in dataclasses.fields(RunConfig)}
    given = vars(parser.parse_args([]))
    assert given and set(given) <= {*fields, *OF_SETTINGS}
    for name in set(given) - OF_SETTINGS:
        assert given[name] == fields[name], name


def test_a_setting_that_no_flag_gives_has_its_default():
    parser = argparse.ArgumentParser()
    for add in groups():
        add(parser.add_argument_group("ours"))
    args = parser.parse_args([])
    assert {name for name in OF_SETTINGS if getattr(args, name)} == set()
    assert build_settings(read_settings(None, args.parallel_overrides)).on_error == "raise"
