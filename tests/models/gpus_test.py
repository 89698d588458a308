import pytest
import torch
from allennlp.common.checks import ConfigurationError

from allennlp_parallel_predict.models.gpus import check_gpus


def test_cpus_are_always_there():
    check_gpus([-1])
    check_gpus([])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_is_allennlps_message_on_any_torch():
    with pytest.raises(ConfigurationError, match="a GPU but none is available") as caught:
        check_gpus([0])
    assert caught.value.explanation.startswith("cannot use the GPU: ")


def test_a_number_that_does_not_exist():
    with pytest.raises(ConfigurationError):
        check_gpus([10_000])
