"""The example's archive, loaded once for all tests of the Python interfaces."""

import pytest
import torch
from allennlp.models import Archive, load_archive

from tests.support.pools import ARCHIVE


@pytest.fixture(scope="module")
def archive() -> Archive:
    import allennlp_models.generation  # noqa: F401  (registers its model)

    torch.set_num_threads(1)
    return load_archive(ARCHIVE)
