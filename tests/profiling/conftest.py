"""A profiled run that the tests of reports look at."""

import pytest

from tests.support.profiles import Profiled, profiled


@pytest.fixture(scope="session")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Profiled:
    """80 lines in batches of 4, of which one is slow, in two workers."""
    inputs = [{"forward": 0.002, "length": n % 5 + 1} for n in range(80)]
    inputs[42]["forward"] = 0.1
    return profiled(inputs, tmp_path_factory.mktemp("report"))
