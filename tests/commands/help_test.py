"""`--help` and wrong flags, as a person sees them."""

import argparse
import re

import pytest
from allennlp.commands.predict import Predict

from allennlp_parallel_predict import ParallelCompare, ParallelPredict, ParallelTune
from allennlp_parallel_predict.commands.help import DOCUMENTATION


@pytest.fixture(params=[ParallelPredict, ParallelTune, ParallelCompare])
def command(request):
    return parser_of(request.param)


def parser_of(command):
    return command().add_subparser(argparse.ArgumentParser(prog="allennlp").add_subparsers())


def groups(parser):
    """The flags of each group of a help text, by its title."""
    flags, title = {}, ""
    for line in parser.format_help().splitlines():
        if re.match(r"\S.*:$", line):
            title = line[:-1]
        elif line.startswith("  -"):
            flags.setdefault(title, set()).update(re.findall(r"(?<!\S)--[a-z-]+", line[:40]))
    return flags


def test_help_has_predicts_flags_and_ours_in_two_groups():
    found = groups(parser_of(ParallelPredict))
    theirs = {flag for flag in parser_of(Predict)._option_string_actions if flag.startswith("--")}
    assert found["flags of allennlp predict, which mean the same here"] == theirs
    assert {"--num-workers", "--resume", "--profile"} <= found["flags of parallel-predict"]
    assert not found["flags of parallel-predict"] & theirs


def test_help_gives_defaults_an_example_and_the_documentation(command):
    text = command.format_help()
    assert f"example:\n    {command.prog} \\\n" in text
    assert DOCUMENTATION in text
    assert all(action.help for action in command._actions)


def test_help_names_the_default_of_each_flag_that_has_one():
    text = " ".join(parser_of(ParallelPredict).format_help().split())
    assert "batch size to use for processing (default: 1)" in text
    assert "(default: one per CPU that may be used, or per GPU)" in text
    assert "(default: None)" not in text


@pytest.mark.parametrize(
    "typo, nearest",
    [
        ("--batchsize", "--batch-size"),
        ("--num_workers=4", "--num-workers"),
        ("--silnet", "--silent"),
    ],
)
def test_a_typo_shows_this_usage_and_the_nearest_flag(capsys, typo, nearest):
    with pytest.raises(SystemExit) as error:
        parser_of(ParallelPredict).parse_args(["model.tar.gz", "input.jsonl", typo])
    assert error.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("usage: allennlp parallel-predict")
    assert lines[-1].endswith(f"unrecognized flags: {typo.split('=')[0]} (did you mean {nearest}?)")


def test_the_main_command_shows_it_too(capsys):
    main = argparse.ArgumentParser(prog="allennlp")
    ParallelTune().add_subparser(main.add_subparsers())
    with pytest.raises(SystemExit):
        main.parse_args(["parallel-tune", "model.tar.gz", "input.jsonl", "--bugdet", "3"])
    written = capsys.readouterr().err
    assert written.startswith("usage: allennlp parallel-tune")
    assert "--bugdet (did you mean --budget?)" in written


@pytest.mark.parametrize("name", ["c.json", "d.json"])
def test_an_argument_too_many_is_named(command, capsys, name):
    arguments = ["a.json", "b.json", name]
    if command.prog.endswith("parallel-predict"):  # which may have several inputs, but in one place
        arguments = ["a.json", "b.json", "--batch-size", "2", name]
    with pytest.raises(SystemExit):
        command.parse_args(arguments)
    assert f"unrecognized arguments: {name}" in capsys.readouterr().err


def test_the_inputs_may_be_several():
    parse = parser_of(ParallelPredict).parse_args
    for arguments in (["model", "a", "b", "c", "--silent"], ["--silent", "model", "a", "b", "c"]):
        parsed = parse(arguments)
        assert (parsed.input_file, parsed.more_inputs) == ("a", ["b", "c"])
    assert parse(["model", "--silent", "a"]).more_inputs == []
