"""Switches between probabilities and classes, on planted pictures."""

import numpy as np
import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.postprocess import PostprocessConfig, postprocess

STRUCTURES = {"myocardium": (1, 2), "MVO": (2,)}


def sure(codes: np.ndarray, classes: int = 3) -> np.ndarray:
    """0.7 for the class drawn, then 0.2 for the background or, within it, for myocardium."""
    probabilities = np.full((classes, *codes.shape), 0.1)
    np.put_along_axis(probabilities, codes[None].astype(np.int64), 0.7, 0)
    second = np.where(codes == 0, 1, 0)
    np.put_along_axis(probabilities, second[None], 0.2, 0)
    return probabilities


def scene() -> np.ndarray:
    """A wall with a lesion through all of it, a lesion 3 pixels off, one far off, and a dot on the wall."""
    codes = np.zeros((30, 40), dtype=np.uint8)
    codes[10:16, 2:38] = 1
    codes[10:16, 10:22] = 2
    codes[19:23, 30:34] = 2  # rows 16 to 18 lie between
    codes[26:29, 5:9] = 2
    codes[15, 35] = 2
    return codes


def flooded(mask: np.ndarray, smallest: int) -> np.ndarray:
    """The components of at least `smallest` pixels, by flooding."""
    kept, left = np.zeros_like(mask), set(map(tuple, np.argwhere(mask)))
    while left:
        part, front = set(), {left.pop()}
        while front:
            r, c = front.pop()
            part.add((r, c))
            near = {(r + dr, c + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)} & left
            left -= near
            front |= near
        for place in part:
            kept[place] = len(part) >= smallest
    return kept


def test_nothing_asked_is_the_most_probable_class() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), (12, 9)).transpose(2, 0, 1)
    found = postprocess(probabilities, PostprocessConfig(), STRUCTURES, "MVO", None)
    np.testing.assert_array_equal(found, probabilities.argmax(0))
    assert found.dtype == np.uint8


@pytest.mark.parametrize(
    ("margin", "spacing", "kept"), [(0.0, None, 1), (3.0, None, 2), (3.0, (2.0, 1.0), 1), (6.0, (2.0, 1.0), 2), (20.0, None, 3)]
)
def test_containment(margin: float, spacing: tuple[float, float] | None, kept: int) -> None:
    unit = "pixels" if spacing is None else "mm"
    """The lesion through the wall stays whole: its inner pixels are 6 pixels from healthy muscle."""
    codes = scene()
    codes[15, 35] = 1
    found = postprocess(
        sure(codes), PostprocessConfig(inside="myocardium", margin=margin, unit=unit), STRUCTURES, "MVO", spacing
    )
    expected = codes.copy()
    if kept < 3:
        expected[26:29, 5:9] = 0
    if kept < 2:
        expected[19:23, 30:34] = 0
    np.testing.assert_array_equal(found, expected)
    alone = np.where(codes == 1, 0, codes).astype(np.uint8)
    assert not postprocess(sure(alone), PostprocessConfig(inside="myocardium"), STRUCTURES, "MVO", None).any()


def test_small_components_go_to_the_next_class() -> None:
    codes = scene()
    found = postprocess(sure(codes), PostprocessConfig(smallest=13.0, unit="pixels"), STRUCTURES, "MVO", (1.5, 1.0))
    np.testing.assert_array_equal(found == 2, flooded(codes == 2, 13))
    assert found[15, 35] == 0  # the second most probable
    spaced = postprocess(sure(codes), PostprocessConfig(smallest=13.0), STRUCTURES, "MVO", (1.5, 1.0))
    np.testing.assert_array_equal(spaced == 2, flooded(codes == 2, 9))  # 9 pixels are 13.5 mm²
    muscle = np.zeros((9, 9), dtype=np.uint8)
    muscle[1, 1], muscle[4:8, 4:8] = 1, 1
    anatomy = postprocess(sure(muscle, 2), PostprocessConfig(smallest=2.0, unit="pixels"), {"myocardium": (1,)}, None, None)
    assert anatomy[1, 1] == 0
    assert anatomy.sum() == 16


def test_threshold_of_the_lesion() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet(np.ones(4), (15, 15)).transpose(2, 0, 1)
    structures = {"myocardium": (1, 2, 3), "infarct": (2, 3)}
    for threshold in (0.2, 0.5, 0.8):
        found = postprocess(probabilities, PostprocessConfig(threshold=threshold), structures, "infarct", None)
        for r, c in np.ndindex(found.shape):
            p = probabilities[:, r, c]
            inside = p[2] + p[3] > threshold
            assert found[r, c] == max((2, 3) if inside else (0, 1), key=lambda code, p=p: p[code])


def test_refuses_what_has_no_meaning() -> None:
    p = sure(scene())
    for config, lesion, message in (
        (PostprocessConfig(inside="myocard"), "MVO", "did you mean 'myocardium'"),
        (PostprocessConfig(inside="myocardium"), None, "there is none"),
        (PostprocessConfig(threshold=0.4), None, "postprocess.threshold"),
        (PostprocessConfig(inside="MVO"), "MVO", "nothing beside"),
    ):
        with pytest.raises(UserError, match=message):
            postprocess(p, config, STRUCTURES, lesion, None)
    with pytest.raises(ValueError, match="threshold"):
        PostprocessConfig(threshold=1.5)
    with pytest.raises(ValueError, match="negative"):
        PostprocessConfig(smallest=-1.0)


def test_millimetres_of_an_unknown_spacing_are_refused() -> None:
    codes = np.zeros((8, 8), dtype=np.uint8)
    for config in (PostprocessConfig(smallest=2.0), PostprocessConfig(inside="myocardium", margin=1.0)):
        with pytest.raises(UserError, match=r"are in mm, but the pixel spacing is unknown; give pixels"):
            postprocess(sure(codes), config, STRUCTURES, "MVO", None)
    assert not postprocess(sure(codes), PostprocessConfig(inside="myocardium"), STRUCTURES, "MVO", None).any()
