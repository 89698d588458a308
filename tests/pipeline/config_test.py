"""Flags that do not go together, found before anything is loaded."""

import pytest

from allennlp_parallel_predict.common.errors import ResumeError, SettingsError
from allennlp_parallel_predict.common.messages import JoinOptions
from allennlp_parallel_predict.pipeline.config import RunConfig
from allennlp_parallel_predict.pipeline.inputs import check_run
from allennlp_parallel_predict.settings import build_settings, read_settings


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"resume": True, "overwrite": True}, "--resume or --overwrite, not both"),
        ({"output_format": "lines"}, "--output-format needs an --output-file"),
        ({"limit": 0}, "--limit must be at least 1, but it is 0"),
        ({"use_dataset_reader": True, "keep_input": True}, "--keep-input and --id-field need"),
        ({"use_dataset_reader": True, "map": "a=b"}, "--map or --use-dataset-reader, not both"),
        ({"fields": "a"}, "--fields needs --input-format csv or tsv"),
        ({"output_fields": "a,,b"}, "--output-fields must be names"),
        ({"input_file": "-", "shard": "1/2"}, "the standard input cannot"),
        ({"input_file": "-", "dry_run": True}, "--dry-run needs an input that is a file"),
        ({"dry_run": True, "profile": "p.json"}, "--dry-run or --profile, not both"),
    ],
)
def test_mistakes(flags, message):
    with pytest.raises(SettingsError) as caught:
        check_run(RunConfig(**{"archive_file": "no.tar.gz", "input_file": "in", **flags}))
    assert message in str(caught.value)


@pytest.mark.parametrize("flags", [{}, {"input_file": "-", "output_file": "out"}])
def test_a_run_that_cannot_be_resumed(flags):
    with pytest.raises(ResumeError, match="--resume needs an"):
        check_run(RunConfig(**{"archive_file": "no", "input_file": "in", **flags}, resume=True))


def test_how_outputs_are_joined():
    assert RunConfig("a", "in").join is None
    assert RunConfig("a", "in", output_fields="x,y.z").join == JoinOptions(
        False, None, ["x", "y.z"]
    )


def test_what_the_output_depends_on():
    settings = build_settings(read_settings())

    def identity(**flags):
        return RunConfig("a.tar.gz", "in", **flags).identity(settings)

    assert identity().files == {"input file": "in", "archive": "a.tar.gz"}
    assert identity(more_inputs=["b"]).files["input file 2"] == "b"
    assert identity(weights_file="w").files["weights file"] == "w"
    assert identity(silent=True, quiet=True, summary="s", resume=True) == identity()
    for flags in ({"limit": 3}, {"shard": "1/2"}, {"output_fields": "x"}, {"deduplicate": True}):
        assert identity(**flags).settings != identity().settings
