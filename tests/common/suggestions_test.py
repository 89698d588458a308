import pytest

from allennlp_parallel_predict.common.suggestions import did_you_mean, suggests_arguments


@pytest.mark.parametrize(
    "name, suggestion",
    [
        ("num_worker", "; did you mean num_workers?"),
        ("batch_size", "; did you mean batching.batch_size?"),
        ("bath_size", "; did you mean batching.batch_size?"),
        ("speed", "."),
    ],
)
def test_the_nearest_name(name, suggestion):
    assert did_you_mean(name, ["num_workers", "batching.batch_size"]) == suggestion


def test_an_unknown_argument():
    class Opener:
        @classmethod
        @suggests_arguments
        def open(cls, path, num_workers=1):
            """Opens."""
            return cls, path, num_workers

    assert Opener.open("a", num_workers=2) == (Opener, "a", 2)
    assert Opener.open.__doc__ == "Opens."
    with pytest.raises(TypeError, match=r"open\(\) .* 'num_worker'; did you mean num_workers\?"):
        Opener.open("a", num_worker=2)
