"""Building parts by name."""

from typing import Literal

import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.registry import Component, build, resolve


class Part:
    PRESETS = {"small": {"width": 8}, "base": {"width": 64}}

    def __init__(self, width: int = 16, mode: Literal["a", "b"] = "a", dims: tuple[int, ...] = (1,)) -> None:
        if width == 13:
            raise ValueError("width must not be 13")
        self.width, self.mode, self.dims = width, mode, dims


class Needy:
    def __init__(self, size: int) -> None:
        self.size = size


TABLE = {"part": Part, "needy": Needy}


def test_presets_and_options() -> None:
    assert build(TABLE, Component("part")).width == 16
    assert build(TABLE, Component("part", {"preset": "small"})).width == 8
    assert build(TABLE, Component("part", {"preset": "base", "width": 5})).width == 5
    assert build(TABLE, Component("part", {"dims": [1, 2]})).dims == (1, 2)


def test_a_class_outside_every_table() -> None:
    cls, options = resolve({}, Component("fractions:Fraction", {"numerator": 3}))
    assert cls(**options) == 3


@pytest.mark.parametrize(
    ("component", "message"),
    [
        (Component("prat"), r"x: unknown name 'prat' \(did you mean 'part'\?\)"),
        (Component("part", {"widht": 3}), r"x\.widht: unknown option of part \(did you mean 'width'\?\)"),
        (Component("part", {"preset": "smal"}), r"x\.preset: part has no preset 'smal' \(did you mean 'small'\?\)"),
        (Component("part", {"width": "wide"}), r"x\.width: .*got 'wide'"),
        (Component("part", {"mode": "c"}), r"x\.mode: .*got 'c'"),
        (Component("part", {"width": 13}), r"x: part: width must not be 13"),
        (Component("needy"), r"x: needy needs the option 'size'"),
        (Component("no.such.module:Thing"), r"x: cannot import"),
        (Component("math:Thing"), r"x: cannot import"),
    ],
)
def test_mistakes_are_named(component: Component, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(TABLE, component, "x")
