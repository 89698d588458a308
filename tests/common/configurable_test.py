"""Objects that know the values that they were built from."""

import pytest
from allennlp.common import Params

from allennlp_parallel_predict.common.configurable import Configurable


class Shape(Configurable):
    pass


@Shape.register("square")
class Square(Shape):
    def __init__(self, side: int, name: str = "it", *, solid: bool = False) -> None:
        self.area = side * side


def test_arguments_with_their_defaults():
    expected = {"type": "square", "side": 3, "name": "it", "solid": True}
    assert Square(3, solid=True).settings() == expected
    assert Shape.from_params(Params({"type": "square", "side": 3, "solid": True})).area == 9


def test_a_class_that_is_not_registered_has_its_own_name():
    class Cube(Square):
        pass

    assert Cube(side=2).settings()["type"] == "Cube"


def test_wrong_arguments_are_pythons_error():
    with pytest.raises(TypeError, match="sides"):
        Square(sides=4)
