"""Whether the GPUs that a run asks for exist."""

from typing import Iterable

import torch
from allennlp.common.checks import ConfigurationError, check_for_gpu

from allennlp_parallel_predict.common.errors import user_error_context


def check_gpus(devices: Iterable[int]) -> None:
    """
    # Raises

    `ConfigurationError`
        AllenNLP's, if there is no such GPU.
    """
    with user_error_context("cannot use the GPU", ConfigurationError):
        for device in devices:
            # AllenNLP would make `torch.device(0)` of a number, which is an error of torch 2 if
            # there is no GPU.
            check_for_gpu(torch.device("cuda", device) if device >= 0 else torch.device("cpu"))
