"""Pictures of segmentations: what is drawn where, what is cut out, in which order cases come."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ssl4neuro.evaluate import overlays
from ssl4neuro.evaluate.overlays import COLOURS, Case, animate_case, crop, draw_case, failures_first

CLASSES = ("background", "myocardium", "MVO")


def disc(row: float, column: float, radius: float, height: int = 80, width: int = 100) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.hypot(y - row, x - column) <= radius


def beating(frames: int = 6, height: int = 80, width: int = 100) -> np.ndarray:
    """A bright disc at row 30, column 60 that is smallest in the fourth frame."""
    radius = [12 - 4 * np.sin(np.pi * t / frames) for t in range(frames)]
    return np.stack([200.0 * disc(30, 60, r, height, width) + 20 for r in radius]).astype(np.int16)


def case(**changed: Any) -> Case:
    predicted, truth = (disc(30, 60, 14).astype(np.uint8), disc(30, 60, 14).astype(np.uint8))
    predicted[disc(30, 70, 4)], truth[disc(30, 50, 4)] = 2, 2
    uncertainty = np.linspace(0, 1, 8000).reshape(80, 100)
    given = Case("sub-01, slice 3", beating(), 0, predicted, truth, uncertainty, CLASSES, 0.04, "Dice 0.41", (1.5, 1.5))
    return given._replace(**changed)


def near(picture: np.ndarray, colour: str) -> np.ndarray:
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return np.abs(picture.astype(int) - wanted).max(axis=2) < 40


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_picture_has_panels_contours_and_is_light(tmp_path: Path) -> None:
    path = draw_case(case(), tmp_path / "a.png")
    picture = read(path)
    assert path.stat().st_size < 300_000
    assert picture.shape[1] > 1000
    for colour in COLOURS[:2]:
        assert near(picture, colour).sum() > 100
    without = read(draw_case(case(predicted=np.zeros((80, 100), np.uint8)), tmp_path / "b.png"))
    assert near(without, COLOURS[1]).sum() == 0


def test_panels_are_only_those_there_is_something_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles: list[list[str]] = []
    pixels = overlays._pixels

    def told(figure: Any) -> np.ndarray:
        titles.append([axes.get_title() for axes in figure.axes if axes.get_title()])
        return pixels(figure)

    monkeypatch.setattr(overlays, "_pixels", told)
    draw_case(case(), tmp_path / "a.png")
    draw_case(case(frame=3, uncertainty=None, truth=None), tmp_path / "b.png")
    draw_case(case(frame=1, uncertainty=None, interval=float("nan")), tmp_path / "c.png")
    draw_case(case(frames=beating(1)), tmp_path / "d.png")
    first = ["as acquired\nframe 0 (0 ms)", "with contours\nframe 0 (0 ms)", "uncertainty\nframe 0 (0 ms)"]
    assert titles[0] == [*first, "most different, frame 3 (120 ms)\ncontours of frame 0"]
    assert titles[1][2:] == ["first, frame 0 (0 ms)\ncontours of frame 3"]
    assert titles[2][2:] == ["first, frame 0\ncontours of frame 1", "most different, frame 3\ncontours of frame 1"]
    assert titles[3] == first


def test_the_crop_holds_masks_and_heart_and_stays_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        height, width = (int(n) for n in rng.integers(20, 200, 2))
        mask = disc(*rng.uniform(0, [height, width]), rng.uniform(0, 40), height, width).astype(np.uint8)
        spacing = None if rng.random() < 0.3 else (float(rng.uniform(0.7, 3)), float(rng.uniform(0.7, 3)))
        frames = rng.integers(0, 9, (3, height, width))
        top, bottom, left, right = crop(Case("", frames, 0, mask, None, None, CLASSES, spacing=spacing))
        assert 0 <= top < bottom <= height
        assert 0 <= left < right <= width
        inside = mask[top:bottom, left:right]
        assert inside.sum() == mask.sum()
        rows, columns = spacing or (1.0, 1.0)
        if bottom - top < height and right - left < width:  # nothing was in the way: square on the patient
            assert abs((bottom - top) * rows - (right - left) * columns) <= 2 * max(rows, columns)


def test_a_small_lesion_is_shown_in_its_heart() -> None:
    """The crop follows the moving heart, not the lesion in the corner of it."""
    lesion = disc(42, 72, 2, 200, 240).astype(np.uint8)
    frames = beating(6, 200, 240)
    top, bottom, left, right = crop(case(frames=frames, predicted=lesion, truth=None, spacing=(1.5, 1.5)))
    assert (bottom - top) * 1.5 == pytest.approx(100, abs=3)
    assert abs((left + right) / 2 - 60) < 4
    assert top == 0
    whole = disc(100, 120, 20, 200, 240).astype(np.uint8)
    top, bottom, left, right = crop(case(frames=frames, predicted=whole, truth=None, spacing=(1.5, 1.5)))
    assert abs((top + bottom) / 2 - 100) < 2
    assert abs((left + right) / 2 - 120) < 2


def test_pixels_that_nobody_has_judged_are_not_drawn(tmp_path: Path) -> None:
    unknown = case().truth
    assert unknown is not None
    unknown = np.where(disc(70, 10, 5), 255, unknown).astype(np.uint8)
    pictures = [read(draw_case(case(truth=truth), tmp_path / "a.png")) for truth in (case().truth, unknown)]
    np.testing.assert_array_equal(*pictures)


def test_an_animation_shows_every_frame_and_the_reference_once() -> None:
    values = animate_case(case(frame=2))
    assert values.dtype == np.uint8
    assert len(values) == 6
    assert min(values.shape[1:3]) >= 256
    orange = [int(near(frame, COLOURS[0]).sum()) for frame in values]
    assert all(orange)
    assert orange[2] > 1.2 * max(n for i, n in enumerate(orange) if i != 2)  # thick where it belongs
    plain = animate_case(case(frame=2, truth=None))
    differs = [(a != b).any() for a, b in zip(values, plain, strict=True)]
    assert differs == [False, False, True, False, False, False]


def test_colour_clips_and_flat_ones_can_be_drawn(tmp_path: Path) -> None:
    draw_case(case(frames=np.repeat(beating()[..., None], 3, axis=3).astype(np.uint8)), tmp_path / "a.png")
    grey, colour = (
        read(draw_case(case(frames=f), tmp_path / "a.png")) for f in (beating(), np.repeat(beating()[..., None], 3, 3))
    )
    np.testing.assert_array_equal(grey, colour)
    draw_case(case(frames=np.full((2, 80, 100), 7)), tmp_path / "b.png")


def test_names_are_no_formulas(tmp_path: Path) -> None:
    draw_case(case(title="$x_1$", note="$\\bad", classes=("background", "$a", "b$")), tmp_path / "a.png")


def test_a_border_of_two_classes_is_dashed_once() -> None:
    """Dashes of both, out of step, would make a solid line."""
    left, right = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    left[2:6, 1:4], right[2:6, 4:7] = True, True
    first = overlays._outline(left)
    rest = overlays._new(overlays._outline(right), first)

    def pieces(paths: list[np.ndarray]) -> set[tuple[tuple[float, ...], ...]]:
        return {tuple(sorted((tuple(a), tuple(b)))) for path in paths for a, b in pairwise(path.tolist())}

    assert not pieces(first) & pieces(rest)
    assert pieces(first) | pieces(rest) == pieces(first) | pieces(overlays._outline(right))
    assert pieces(rest) != pieces(overlays._outline(right))
    assert overlays._outline(np.zeros((4, 4), bool)) == []


def scans() -> pd.DataFrame:
    def line(name: str, area_true: float, area: float, dice: float, **more: Any) -> dict[str, Any]:
        own = {"model": "mvo", "baseline": False, "structure": "MVO", "subject": name, "area_true": area_true, "area": area}
        return own | {"positive": area_true > 0, "detected": area > 0, "dice": dice} | more

    return pd.DataFrame([
        line("good", 50, 50, 0.9), line("empty", 0, 0, np.nan), line("small alarm", 0, 5, 0.0), line("poor", 40, 10, 0.1),
        line("small miss", 10, 0, 0.0), line("middling", 30, 30, 0.5), line("large alarm", 0, 80, 0.0),
        line("large miss", 90, 0, 0.0), line("better", 60, 60, 0.8), line("best", 60, 60, 0.95),
        line("baseline", 99, 0, 0.0, baseline=True, model="empty"), line("other", 99, 0, 0.0, structure="infarct"),
        line("second", 99, 0, 0.0, model="unet"),
    ])  # fmt: skip


def test_failures_come_first() -> None:
    order = failures_first(scans(), "MVO")
    assert order["subject"].tolist() == [
        "large miss", "small miss", "large alarm", "small alarm", "poor", "middling", "better", "best", "good",
    ]  # fmt: skip
    assert order["why"].tolist()[:1] == ["missed, 90 mm² in the reference"]
    assert order["why"].tolist()[2:5] == ["false alarm, 80 mm²", "false alarm, 5 mm²", "low Dice, 0.10"]
    assert order["why"].tolist()[-2:] == ["among the best, Dice 0.95", "among the best, Dice 0.90"]
    assert set(order.columns) == {*scans().columns, "why"}


def test_a_gallery_has_every_kind() -> None:
    """Twenty missed lesions do not crowd out the rest."""
    many = pd.concat([scans()] + [scans()[scans()["subject"] == "small miss"]] * 20, ignore_index=True)
    order = failures_first(many, "MVO", most=12)
    assert len(order) == 12
    kinds = [why.split(",")[0] for why in order["why"]]
    assert kinds == ["missed"] * 5 + ["false alarm"] * 2 + ["low Dice"] * 3 + ["among the best"] * 2
    assert [len(failures_first(scans(), "MVO", most=n)) for n in (0, 1, 5, 9, 50)] == [0, 1, 5, 9, 9]


def test_nothing_to_show_is_an_empty_table() -> None:
    assert failures_first(scans(), "unknown").empty
    assert "why" in failures_first(scans(), "unknown")
