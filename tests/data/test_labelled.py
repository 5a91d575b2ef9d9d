"""Labelled frames: which there are, and that clips are entered at them."""

import numpy as np
import pytest
import torch
from clip_sources import acdc

from ssl4neuro.data.clip_loading import ClipConfig, crop_box, load_clips, restore
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.labelled import LabelledRows, labelled_frames
from ssl4neuro.data.loader import CohortRows
from ssl4neuro.data.prepare_clips import prepare_clips

CLIP = ClipConfig(frames=4, size=32)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    folder = tmp_path_factory.mktemp("clips")
    return prepare_clips(folder / "cohort", source=acdc(folder / "acdc", patients=3, frames=8), layout="acdc")


def test_every_masked_frame_is_found_with_what_its_mask_holds(cohort: Cohort) -> None:
    frames = labelled_frames(cohort)
    expected = [(row, int(f)) for row in range(len(cohort)) for f in cohort.clip(row).mask_frames]
    assert list(zip(frames.row.tolist(), frames.frame.tolist(), strict=True)) == expected
    for number, (row, frame) in enumerate(expected):
        clip = cohort.clip(row)
        mask = clip.mask[list(clip.mask_frames).index(frame)]
        assert np.flatnonzero(frames.values[number]).tolist() == np.unique(mask).tolist()
    assert frames.holds([3]).all()
    assert not frames.holds([1, 2]).any()


def test_clips_are_rolled_on_their_cycle_to_the_labelled_frame(cohort: Cohort) -> None:
    frames = labelled_frames(cohort)
    batch = LabelledRows(cohort, frames, CLIP).__getitems__(list(range(len(frames))))
    plain = CohortRows(cohort, ("cine",), clip=CLIP).__getitems__(frames.row.tolist())
    assert batch["row"].tolist() == list(range(len(frames)))
    for i, frame in enumerate(frames.frame.tolist()):
        rolled = torch.roll(plain["inputs"]["cine"][i], -frame, dims=1)
        assert torch.equal(batch["inputs"]["cine"][i], rolled)
        assert torch.equal(batch["masks"]["cine"][i, 0], plain["masks"]["cine"][i, frame])
        assert (batch["masks"]["cine"][i, 1:] == -1).all()
    assert frames.frame.max() > 0  # otherwise nothing was rolled


def test_times_go_on_past_the_end_of_the_cycle(cohort: Cohort) -> None:
    clip = cohort.clip(0)
    times = np.arange(8, dtype=np.float32) * 0.1
    loaded = load_clips([type(clip)(**{**vars(clip), "times": times})], np.array([[20.0, 20.0]]), CLIP)
    from ssl4neuro.data.labelled import roll_to

    batch = {"inputs": {"cine": loaded.x}, "valid": {"cine": loaded.valid}, "times": {"cine": loaded.times}}
    rolled = roll_to(batch, torch.tensor([5]))  # type: ignore[arg-type]
    torch.testing.assert_close(rolled["times"]["cine"][0], torch.arange(8) * 0.1)


def test_a_still_clip_shows_its_first_frame_only(cohort: Cohort) -> None:
    frames = labelled_frames(cohort)
    still, moving = (LabelledRows(cohort, frames, CLIP, still=s).__getitems__([1])["inputs"]["cine"] for s in (True, False))
    assert torch.equal(still, moving[:, :, :1].expand_as(still))
    assert not torch.equal(still, moving)


@pytest.mark.parametrize(
    "config",
    [
        ClipConfig(size=64, crop="none"),
        ClipConfig(size=64, crop="centre", extent=0.5),
        ClipConfig(size=64, crop="centre", extent=1.5),
    ],
)
def test_restoring_puts_a_smooth_picture_back_where_it_was(cohort: Cohort, config: ClipConfig) -> None:
    clip, centre = cohort.clip(0), (19.0, 19.0)
    rows, columns = np.indices((40, 40))
    smooth = np.exp(-((rows - 17) ** 2 + (columns - 22) ** 2) / 120).astype(np.float32)
    loaded = load_clips([type(clip)(frames=smooth[None])], np.array([centre]), config)
    back = restore(loaded.x[0, :, 0], clip, centre, config)[0].numpy()
    top, left, tall, wide = crop_box(clip, centre, config)
    inside = np.s_[max(top, 0) + 2 : min(top + tall, 40) - 2, max(left, 0) + 2 : min(left + wide, 40) - 2]
    np.testing.assert_allclose(back[inside], smooth[inside], atol=0.02)
    outside = np.ones((40, 40), dtype=bool)
    outside[max(top, 0) : top + tall, max(left, 0) : left + wide] = False
    assert (back[outside] == 0).all()
