import json
from pathlib import Path

import pytest
from allennlp.common.checks import ConfigurationError

from allennlp_parallel_predict import BucketBatching, InProcessExecutor, ProcessPoolExecutor
from allennlp_parallel_predict.common.errors import SettingsError
from allennlp_parallel_predict.settings import build_settings, read_settings, set_cuda_device

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.jsonnet"))


def build(overrides: str = "", **flags):
    dotted = {key.replace("__", "."): value for key, value in flags.items()}
    return build_settings(read_settings(None, overrides, dotted))


def test_defaults_are_those_of_predict():
    settings = build()
    assert isinstance(settings.executor, ProcessPoolExecutor)
    assert type(settings.batching).__name__ == "InOrderBatching"
    assert (settings.batching.batch_size, settings.on_error) == (1, "raise")


def test_flags_win_over_overrides_and_overrides_over_the_file(tmp_path):
    file = tmp_path / "pool.jsonnet"
    file.write_text('{executor: {num_workers: 1}, batching: {batch_size: 2}, on_error: "skip"}')
    values = read_settings(
        str(file), '{"executor.num_workers": 3, "batching.batch_size": 4}', {"on_error": "raise"}
    )
    assert values["executor"]["num_workers"] == 3
    assert values["batching"]["batch_size"] == 4
    assert values["on_error"] == "raise"


def test_environment_variables_are_external_variables(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKERS", "5")
    file = tmp_path / "pool.jsonnet"
    file.write_text('{executor: {num_workers: std.parseInt(std.extVar("WORKERS"))}}')
    assert build_settings(read_settings(str(file))).executor.num_workers == 5


def test_a_type_alone_may_stand_for_a_section():
    settings = build('{"executor": "in_process", "batching": "bucket"}')
    assert isinstance(settings.executor, InProcessExecutor)
    assert isinstance(settings.batching, BucketBatching)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid(example, monkeypatch):
    monkeypatch.setenv("WORKERS", "2")
    build_settings(read_settings(str(example)))


def test_the_example_of_all_settings_has_all_of_them_and_their_defaults():
    import inspect

    from allennlp_parallel_predict import InOrderBatching, Settings

    values = read_settings(str(EXAMPLES[0].parent / "pool.jsonnet"))
    sections = {"": Settings, "executor": ProcessPoolExecutor, "batching": InOrderBatching}
    for section, owner in sections.items():
        given = values[section] if section else values
        parameters = inspect.signature(owner.__init__).parameters
        assert {*given} - {"type"} == {*parameters} - {"self"}
        for key, parameter in parameters.items():
            if parameter.default is not parameter.empty:
                assert given[key] == parameter.default, key


@pytest.mark.parametrize(
    "overrides, named",
    [
        ('{"executor.workers": 2}', ["executor.workers", "executor.num_workers"]),
        ('{"batching.window": 2}', ["batching.window", "batching.batch_size"]),
        ('{"batch_size": 2}', ["batch_size", "batching"]),
        ('{"executor.num_workers": "2"}', ["executor.num_workers", "a whole number", '"2"']),
        ('{"executor.num_workers": true}', ["executor.num_workers", "a whole number", "true"]),
        ('{"executor.num_workers": 1.5}', ["executor.num_workers", "a whole number", "1.5"]),
        ('{"executor.num_workers": -1}', ["executor.num_workers", "at least 1", "-1"]),
        ('{"executor.num_workers": 0}', ["executor.num_workers", "at least 1"]),
        ('{"executor.threads_per_worker": 0}', ["executor.threads_per_worker", "at least 1"]),
        ('{"executor.max_retries": -1}', ["executor.max_retries", "at least 0"]),
        ('{"executor.batch_timeout": -2.5}', ["executor.batch_timeout", "over 0"]),
        ('{"executor.share_model": 1}', ["executor.share_model", "true or false"]),
        ('{"executor.cuda_devices": 0}', ["executor.cuda_devices", "a list"]),
        ('{"executor.start_method": "forkserver"}', ["executor.start_method", "spawn"]),
        (
            '{"executor.start_method": "fork", "executor.cuda_devices": [0]}',
            ["executor.start_method", "spawn"],
        ),
        ('{"executor.type": "threads"}', ["executor.type", "process_pool", "in_process"]),
        ('{"batching.batch_size": 0}', ["batching.batch_size", "at least 1"]),
        ('{"batching": {"type": "bucket", "batch_size": 8, "window": 4}}', ["batching.window"]),
        ('{"on_error": "ignore"}', ["on_error", "raise, skip, placeholder"]),
        ('{"max_errors": -1}', ["max_errors", "at least 0"]),
        ('{"checkpoint_interval": -1}', ["checkpoint_interval"]),
        ('{"executor.cuda_devices": [0, -1]}', ["executor.cuda_devices", "at least 0", "-1"]),
        ('{"precision": "bf61"}', ["precision", "fp32, tf32, fp16, bf16"]),
        ('{"precision": "fp16"}', ["precision 'fp16' needs a GPU", "executor.cuda_devices"]),
        ('{"precision": "bf16", "executor": "in_process"}', ["precision", "executor.type"]),
        ('{"precision_sample": -1}', ["precision_sample", "at least 0"]),
        ('{"precision_min_agreement": 99.5}', ["precision_min_agreement", "from 0 to 1", "99.5"]),
        ('{"executor": 3}', ["executor", "3"]),
        ("[1]", ["settings"]),
        ("{nonsense", ["--parallel-overrides"]),
    ],
)
def test_mistakes_are_named_with_what_is_allowed(overrides, named):
    with pytest.raises(SettingsError) as caught:
        build(overrides)
    for text in named:
        assert text in str(caught.value)
    assert isinstance(caught.value, ConfigurationError)


def test_a_missing_file_is_a_mistake():
    with pytest.raises(SettingsError, match="no-such-file.jsonnet"):
        read_settings("no-such-file.jsonnet")


def test_an_undefined_external_variable_is_named(tmp_path):
    file = tmp_path / "pool.jsonnet"
    file.write_text('{executor: {num_workers: std.extVar("NOT_THERE")}}')
    with pytest.raises(SettingsError, match="NOT_THERE"):
        read_settings(str(file))


def test_one_gpu_or_a_list_of_gpus_but_not_both():
    executor = {}
    set_cuda_device(executor, 0)
    assert executor == {"cuda_devices": [0]}
    with pytest.raises(SettingsError, match="cuda_device"):
        set_cuda_device(executor, 1)


def test_users_can_register_their_own():
    from allennlp_parallel_predict import Batching, InOrderBatching

    @Batching.register("settings-test-pairs")
    class Pairs(InOrderBatching):
        def __init__(self, odd: bool = False) -> None:
            super().__init__(batch_size=2)
            self.odd = odd

    settings = build(json.dumps({"batching": {"type": "settings-test-pairs", "odd": True}}))
    assert isinstance(settings.batching, Pairs) and settings.batching.odd
    with pytest.raises(SettingsError, match="batching.even"):
        build(json.dumps({"batching": {"type": "settings-test-pairs", "even": True}}))


def test_what_is_built_knows_its_settings():
    from allennlp_parallel_predict import Batching, InOrderBatching

    assert BucketBatching(window=64).settings() == {
        "type": "bucket",
        "batch_size": 32,
        "window": 64,
        "length": "characters",
        "max_tokens": None,
    }
    executor = build('{"executor.num_workers": 3}').executor
    given = ProcessPoolExecutor(3).settings()
    assert executor.settings() == given and given["num_workers"] == 3 and given["pin_cpus"]

    @Batching.register("settings-test-odd")
    class Odd(InOrderBatching):
        def __init__(self, odd: bool = False) -> None:
            super().__init__(batch_size=2)

    assert Odd(odd=True).settings() == {"type": "settings-test-odd", "odd": True}


@pytest.mark.parametrize(
    "overrides, nearest",
    [
        ('{"executor.num_worker": 2}', "did you mean executor.num_workers?"),
        ('{"executor.workers": 2}', "did you mean executor.num_workers?"),
        ('{"batch_size": 2}', "did you mean batching.batch_size?"),
        ('{"executor.batch_size": 2}', "did you mean batching.batch_size?"),
        ('{"on_eror": "skip"}', "did you mean on_error?"),
        ('{"batching.type": "buckets"}', "did you mean bucket?"),
        ('{"executor": "proces_pool"}', "did you mean process_pool?"),
        ('{"speed": 2}', "speed is not a setting. These exist: executor, batching"),
    ],
)
def test_the_nearest_key_is_suggested(overrides, nearest):
    with pytest.raises(SettingsError) as caught:
        build(overrides)
    assert nearest in str(caught.value)


@pytest.mark.parametrize("precision", ["tf32", "fp16", "bf16"])
def test_no_other_precision_is_exact(precision):
    settings = build(json.dumps({"precision": precision, "executor.cuda_devices": [0, 1]}))
    assert settings.exact and not settings.is_exact
    assert build("{}").is_exact


def test_a_worker_of_ray_may_have_a_gpu():
    pytest.importorskip("ray")
    ray = {"type": "ray", "num_gpus_per_worker": 0.5}
    assert build(json.dumps({"precision": "fp16", "executor": ray})).precision == "fp16"
