"""Whether the GPUs that a run asks for exist."""

from typing import Iterable

from allennlp.common.checks import ConfigurationError, check_for_gpu

from allennlp_parallel_predict.common.errors import user_error_context


def check_gpus(devices: Iterable[int]) -> None:
    """Raises AllenNLP's `ConfigurationError` if there is no such GPU."""
    with user_error_context("cannot use the GPU", ConfigurationError):
        check_for_gpu(list(devices))
