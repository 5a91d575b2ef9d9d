"""Clips on disk and on their way to the encoder: nothing changes but what is said to, and no clip touches another."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4neuro.data.clip import Clip, ClipRows
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.clip_loading import ClipConfig, crop_box, load_clips
from ssl4neuro.data.clip_rows import ClipFormat, moving_centre
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.cohort_writer import CohortParts, PreparedScan, write_cohort
from ssl4neuro.data.loader import CohortRows
from ssl4neuro.data.scan import Scan
from ssl4neuro.data.views import make_views
from ssl4neuro.errors import UserError
from ssl4neuro.manifest import Manifest
from ssl4neuro.registry import Component

TIMES = np.arange(9) * 0.03  # s


def clip(seed: int = 0, frames: int = 9, size: tuple[int, int] = (40, 48), kind: str = "uint8", **options) -> Clip:
    values = np.random.default_rng(seed).uniform(0, 120, (frames, *size)).astype(kind)
    return Clip(values, **options)


def studies() -> list[ClipRows]:
    mask = np.zeros((2, 40, 48), np.uint8)
    mask[0, 10:20, 5:9], mask[1, 10:15, 5:9] = 3, 2
    return [
        ClipRows([
            clip(1, view="sax", slice=0, times=TIMES, spacing=(1.5, 1.25), mask=mask, mask_frames=np.array([0, 4])),
            clip(2, frames=5, view="sax", slice=1, kind="int16"),
        ]),
        ClipRows([clip(3, frames=1, kind="float32"), clip(4, frames=12, size=(30, 33, 3))]),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    form = ClipFormat()
    scans = [
        PreparedScan(Scan(f"sub-{n}", (), session="ses-1"), form.finalise(rows, f"study {n}")[0], f"key{n}", f"{n}" * 64, [])
        for n, rows in enumerate(studies())
    ]
    return write_cohort(tmp_path_factory.mktemp("clips") / "c", scans, CohortParts(name="c", kind="clips"))


def same(a: Clip, b: Clip) -> None:
    assert a.frames.dtype == b.frames.dtype
    np.testing.assert_array_equal(a.frames, b.frames)
    assert (a.view, a.slice, a.spacing) == (b.view, b.slice, b.spacing)
    for name in ("times", "mask", "mask_frames"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None)
        if left is not None:
            np.testing.assert_allclose(left, right, rtol=1e-6)


def test_clips_come_back_as_they_were(cohort: Cohort) -> None:
    assert isinstance(cohort, ClipCohort)
    assert cohort.modalities == ("cine", "motion")
    written = [c for rows in studies() for c in rows.clips]
    for row, expected in enumerate(written):
        same(cohort.clip(row), expected)
    for found, row in zip(cohort.fetch(np.array([3, 0, 3]))["cine"], (3, 0, 3), strict=True):
        same(found, written[row])
    index = cohort.index
    assert index["frames"].tolist() == [9, 5, 1, 12]
    assert index["channels"].tolist() == [1, 1, 1, 3]
    assert index["group_code"].tolist() == [0, 0, 1, 1]
    assert index["interval"][0] == pytest.approx(0.03)
    assert np.isnan(index["interval"][1])
    with pytest.raises(IndexError):
        cohort.clip(4)
    with pytest.raises(ValueError, match="read-only"):
        cohort.clip(0).frames[0] = 1


def test_packed_studies_come_back(tmp_path: Path) -> None:
    form = ClipFormat()
    rows = form.finalise(studies()[0], "study")[0]
    arrays, meta = form.pack(rows)
    again = form.unpack(arrays, json.loads(json.dumps(meta)))
    for a, b in zip(rows.clips, again.clips, strict=True):
        same(a, b)
    assert again.nuisance == rows.nuisance == {"n_clips": 2.0, "n_frames": 9.0}


def test_constant_clips_are_left_out_and_what_is_no_clip_is_refused() -> None:
    form = ClipFormat()
    still = Clip(np.full((4, 8, 8), 7, np.uint8), slice=2)
    rows, left_out = form.finalise(ClipRows([clip(), still]), "FILE")
    assert len(rows.clips) == 1
    assert left_out == ["slice 2 is constant, left out"]
    bad = clip(kind="float32")
    bad.frames[3, 0, 0] = np.nan
    small_mask = clip(mask=np.zeros((1, 40, 48), np.uint8), mask_frames=np.array([0]))
    object.__setattr__(small_mask, "mask", np.zeros((1, 5, 5), np.uint8))  # past the check of shapes, which users do not have
    for broken, words in (
        (ClipRows([still]), "no clip can be used"),
        (ClipRows([bad]), "in 1 of 9 frames"),
        (ClipRows([Clip(np.zeros((3, 4, 5, 2)))]), "time × height × width"),
        (ClipRows([clip(times=np.array([0.0, 2, 1, 3, 4, 5, 6, 7, 8]))]), "backwards"),
        (ClipRows([small_mask]), "masks of shape"),
        (ClipRows([clip(mask=np.zeros((1, 40, 48), np.uint8), mask_frames=np.array([9]))]), "frame 9 of 9"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            form.finalise(broken, "FILE")
        assert str(caught.value).startswith("FILE")


def test_the_moving_region_is_found() -> None:
    rows, columns = np.indices((60, 80))
    beating = [100 * ((rows - 20) ** 2 + (columns - 55) ** 2 < (8 + 3 * np.sin(t)) ** 2) for t in range(10)]
    noise = np.random.default_rng(0).normal(0, 5, (10, 60, 80))
    assert moving_centre(np.array(beating) + noise + 10 * columns) == pytest.approx((20, 55), abs=2.5)
    assert moving_centre(np.zeros((1, 9, 5), np.uint8)) == (4, 2)


@given(
    middle=st.tuples(st.floats(-50, 150), st.floats(-50, 150)),
    size=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    extent=st.floats(0.1, 2),
    spacing=st.none() | st.tuples(st.floats(0.5, 3), st.floats(0.5, 3)),
)
@settings(max_examples=60, deadline=None)
def test_crops_lie_in_the_picture_where_they_fit(middle, size, extent, spacing) -> None:
    picture = Clip(np.zeros((1, *size), np.uint8), spacing=spacing)
    top, left, tall, wide = crop_box(picture, middle, ClipConfig(extent=extent))
    for start, side, length in ((top, tall, size[0]), (left, wide, size[1])):
        assert side >= 1
        if side <= length:
            assert 0 <= start <= length - side
        else:
            assert start <= 0
            assert start + side >= length
    loaded = load_clips([picture], np.array([middle]), ClipConfig(extent=extent, size=16))
    assert loaded.x.shape == (1, 1, 1, 16, 16)


def test_a_field_in_mm_sees_the_same_tissue_whatever_the_pixels() -> None:
    """A disc of 20 mm fills the same share of the crop in pictures of 1 and of 2 mm pixels."""
    shares = []
    for spacing in (1.0, 2.0):
        rows, columns = np.indices((round(120 / spacing), round(160 / spacing))) * spacing
        disc = (100 * ((rows - 60) ** 2 + (columns - 80) ** 2 < 400)).astype(np.uint8)
        picture = Clip(disc[None], spacing=(spacing, spacing))
        x = load_clips([picture], np.array([[60 / spacing, 80 / spacing]]), ClipConfig(field=80.0, size=64)).x
        shares.append(float((x > 50).float().mean()))
    assert shares[0] == pytest.approx(np.pi * 400 / 80**2, rel=0.03)
    assert shares[1] == pytest.approx(shares[0], rel=0.05)


def test_masks_go_with_their_frames_and_through_the_crop() -> None:
    mask = np.zeros((1, 40, 40), np.uint8)
    mask[0, 8:16, 20:36] = 3
    frames = np.zeros((5, 40, 40), np.uint8)
    frames[2] = mask[0] * 50
    marked = Clip(frames, mask=mask, mask_frames=np.array([2]))
    loaded = load_clips([marked, clip(frames=3)], np.array([[12.0, 28.0], [20.0, 20.0]]), ClipConfig(size=40, extent=1.0))
    assert loaded.masks is not None
    assert (loaded.masks[0, [0, 1, 3, 4]] == -1).all()
    assert (loaded.masks[1] == -1).all()
    assert torch.equal(loaded.masks[0, 2] == 3, loaded.x[0, 0, 2] == 150)
    half = load_clips([marked], np.array([[12.0, 28.0]]), ClipConfig(size=20, extent=0.5))
    assert torch.equal(half.masks[0, 2] == 3, half.x[0, 0, 2] == 150)
    assert half.masks[0, 2].eq(3).sum() == 8 * 16


def test_rows_load_alone_as_they_do_together(cohort: Cohort) -> None:
    rows = CohortRows(cohort, ("cine", "motion"), clip=ClipConfig(frames=4, size=32))
    together = rows.__getitems__([0, 1, 2, 3])
    assert together["valid"]["cine"].sum(1).tolist() == [9, 5, 1, 12]
    for row in range(4):
        alone = rows[row]
        count = alone["inputs"]["cine"].shape[2]
        assert torch.equal(alone["inputs"]["cine"][0], together["inputs"]["cine"][row, :, :count])
        assert (together["inputs"]["cine"][row, :, count:] == 0).all()


@pytest.mark.parametrize("epoch", [None, 0])
def test_views_have_what_encoders_need(cohort: Cohort, epoch: int | None) -> None:
    config = ClipConfig(frames=4, size=32, normalise="zscore")
    rows = CohortRows(cohort, ("cine", "motion"), clip=config)
    augment = {"cine": Component("clip"), "motion": Component("clip", {"stream": "motion"})}
    make = make_views(cohort, ("cine", "motion"), clip=config, augment=augment, counts={"cine": 2}, seed=1)
    batch = make(rows.__getitems__([0, 1, 2, 3]), epoch)
    views = 2 if epoch == 0 else 1
    assert batch["inputs"]["cine"].shape == (4, views, 1, 4, 32, 32)
    assert batch["inputs"]["motion"].shape == (4, 1, 1, 4, 32, 32)
    assert batch["masks"]["cine"].shape == (4, views, 4, 32, 32)
    assert batch["present"]["motion"].tolist() == [True, True, False, True], "one frame does not move"
    assert torch.isfinite(batch["inputs"]["motion"]).all()
    torch.testing.assert_close(batch["inputs"]["motion"].sum(3), torch.zeros(4, 1, 1, 32, 32), atol=1e-4, rtol=0)
    again = make(rows.__getitems__([3, 0]), epoch)
    assert torch.equal(again["inputs"]["cine"][0], batch["inputs"]["cine"][3])


def test_augmentations_of_other_data_are_refused(cohort: Cohort) -> None:
    with pytest.raises(UserError, match="'volume' is not for the cine"):
        make_views(cohort, ("cine",), augment={"cine": Component("volume")})


def test_the_firewall_knows_a_clip_in_another_study(cohort: Cohort, tmp_path: Path) -> None:
    """One of the clips again, beside a new one, in another file, under another name: it was seen all the same."""
    form = ClipFormat()
    rows, _ = form.finalise(ClipRows([clip(77), studies()[0].clips[1]]), "study")
    other = write_cohort(
        tmp_path / "o", [PreparedScan(Scan("someone", ()), rows, "k", "f" * 64, [])], CohortParts(name="other", kind="clips")
    )
    manifest = Manifest.of(cohort.name, ["sub-0"], cohort.content_hashes()["sub-0"])
    assert manifest.overlap(other.name, other.content_hashes()) == ["someone"]
    assert (
        Manifest.of(cohort.name, ["sub-1"], cohort.content_hashes()["sub-1"]).overlap(other.name, other.content_hashes()) == []
    )
