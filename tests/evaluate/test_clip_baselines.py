"""Baselines for clips: what each sees and does not see, slices by thirds, areas against a naive mean."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.data.clip import Clip
from ssl4neuro.evaluate.clip_baselines import (
    SIDE,
    clip_baselines,
    clip_facts,
    motion_energy,
    nuisance_clips,
    square,
    unit_parts,
)
from ssl4neuro.evaluate.crossval import Settings, evaluate
from ssl4neuro.evaluate.problem import pose

NAMES = ["PCA of mean and sd image", "motion energy", "intensity and header"]


def fake_cohort(people=24, slices=3, told="nothing", spacing=2.0):
    """Beating discs off the centre of the frame. The second half of the people differ in what is `told`."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(np.arange(80.0), np.arange(90.0), indexing="ij"))
    clips, lines = [], []
    for person in range(people):
        ill = person >= people // 2
        frames = 14 if told == "frames" and ill else 12
        size = rng.normal(1, 0.08)
        for number in range(slices):
            centre = np.array([35.0, 50.0]) + rng.normal(0, 1, 2)
            radius = np.hypot(*(grid - centre[:, None, None]))
            beat = 0.5 if told == "motion" and ill else 3.0
            wide = 18.0 if told == "size" and ill else 14.0
            edge = [wide * size + beat * np.cos(2 * np.pi * t / frames) for t in range(frames)]
            video = np.stack([100 + 80 / (1 + np.exp((radius - e) * 2)) for e in edge]) + rng.normal(0, 4, (frames, 80, 90))
            video *= (2.0 if told == "scale" and ill else 1.0) * rng.uniform(0.95, 1.05)
            clips.append(Clip(video.astype(np.float32), "sax", number))
            lines.append(
                {"subject": f"p{person:02d}", "session": "1", "view": "sax", "slice": number, "frames": frames, "height": 80,
                 "width": 90, "channels": 1, "interval": np.nan, "spacing_row": spacing, "spacing_column": spacing,
                 "centre_row": centre[0], "centre_column": centre[1]}
            )  # fmt: skip
    index = pd.DataFrame(lines)
    cohort = SimpleNamespace(index=index, clip=lambda row: clips[row])
    table = pd.DataFrame({"subject": sorted(set(index["subject"])), "seen": False})
    problem = pose(table, pd.Series(np.where(np.arange(people) < people // 2, "control", "ill")), "group", "subject")
    units = [np.flatnonzero((index["subject"] == name).to_numpy()) for name in table["subject"]]
    return problem, cohort, units


def areas(told):
    problem, cohort, units = fake_cohort(told=told)
    candidates, notes = clip_baselines(problem, cohort, units)
    assert "sax first third, sax middle third, sax last third" in notes[0]
    outcomes, _ = evaluate(problem, candidates, Settings(permutations=0, bootstrap=0))
    rows = [next(row for row in outcome.rows if row.metric == "AUC") for outcome in outcomes]
    return {row.name.removesuffix(" + logistic"): row.value for row in rows}


def test_each_sees_its_own_kind_of_difference():
    motion, size, scale, frames = (areas(told) for told in ("motion", "size", "scale", "frames"))
    assert set(motion) >= set(NAMES)
    assert motion["motion energy"] > 0.95
    assert size["PCA of mean and sd image"] > 0.95
    assert scale["intensity and header"] > 0.95
    assert frames["intensity and header"] > 0.95
    for name in ("PCA of mean and sd image", "motion energy"):  # normalised per clip
        assert 0.1 < scale[name] < 0.9
    nothing = areas("nothing")
    assert all(0.1 < nothing[name] < 0.9 for name in NAMES if name in nothing)


def test_square_equals_a_mean_over_areas():
    rng = np.random.default_rng(0)
    frames = rng.normal(size=(2, 140, 150)).astype(np.float32)
    line = {"spacing_row": 120 / 64, "spacing_column": 120 / 96, "centre_row": 69.5, "centre_column": 79.5}
    out = square(frames, line, spaced=True)  # 64 x 96 pixels, so each is a mean of 2 x 3
    expected = frames[:, 38:102, 32:128].reshape(2, SIDE, 2, SIDE, 3).mean((2, 4))
    np.testing.assert_allclose(out, expected, atol=1e-5)
    corner = square(np.ones_like(frames), {**line, "centre_row": 3.0, "centre_column": 149.0}, spaced=True)
    np.testing.assert_allclose(corner, 1, atol=1e-5)
    share = square(frames, {"centre_row": np.nan, "centre_column": np.nan}, spaced=False)  # 84 pixels about the middle
    assert share.mean() == pytest.approx(frames[:, 28:112, 33:117].mean(), abs=1e-4)


def test_energy_is_found_where_and_when_it_is():
    frames = np.zeros((9, SIDE, SIDE), dtype=np.float32)
    frames[5:, 14:18, 14:18] = 1  # one step at the centre, from frame 4 to 5: the third quarter of the eight
    energy = motion_energy(frames).reshape(4, 4)
    assert np.unravel_index(energy.argmax(), (4, 4)) == (0, 2)
    assert (np.delete(energy.ravel(), 2) < energy.max() - 3).all()
    assert np.isfinite(motion_energy(frames[:1])).all()
    assert np.isfinite(motion_energy(frames[4:6])).all()


def test_parts_of_a_unit():
    index = pd.DataFrame({"view": ["sax"] * 7 + ["4ch"] + ["sax"] * 3, "slice": [4, 0, 1, 2, 3, 5, 6, -1, 2, 0, 1]})
    parts, names = unit_parts(index, [np.arange(8), np.arange(8, 11)])
    assert names == ["sax first third", "sax middle third", "sax last third"]
    assert [sorted(index["slice"][p]) for p in parts[0]] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [index["slice"][p].tolist() for p in parts[1]] == [[0], [1], [2]]
    parts, names = unit_parts(index, [np.arange(8), np.array([7])])
    assert names == ["4ch"]
    assert [p[0].tolist() for p in parts] == [[7], [7]]
    parts, names = unit_parts(index, [np.array([0, 1]), np.array([7])])
    assert names == [""]
    assert [p[0].tolist() for p in parts] == [[0, 1], [7]]


def test_single_frames_and_colour_are_handled():
    problem, cohort, units = fake_cohort(people=6)
    still = [Clip(np.repeat(cohort.clip(row).frames[:1, :, :, None], 3, axis=3).astype(np.uint8)) for row in range(18)]
    index = cohort.index.assign(frames=1, spacing_row=np.nan, spacing_column=np.nan, channels=3)
    candidates, notes = clip_baselines(problem, SimpleNamespace(index=index, clip=lambda row: still[row]), units)
    assert [c.name.split(" +")[0] for c in candidates] == [NAMES[0], NAMES[2]]
    assert "18 of 18 clips are single frames" in notes[1]
    for candidate in candidates:
        left, right = candidate.features.fold(np.arange(4), np.arange(4, 6))
        assert np.isfinite(left).all()
        assert np.isfinite(right).all()


def test_principal_components_ignore_the_test_rows():
    problem, cohort, units = fake_cohort(people=8)
    features = clip_baselines(problem, cohort, units)[0][0].features
    train, test = np.arange(6), np.arange(6, 8)
    before = features.fold(train, test)
    features.images[7] += 100
    after = features.fold(train, test)
    assert np.array_equal(before[0], after[0])
    assert np.array_equal(before[1][0], after[1][0])
    assert not np.allclose(before[1][1], after[1][1])


def test_nuisances_are_raw_and_leave_out_what_never_varies():
    _, cohort, units = fake_cohort(people=4, told="frames")
    facts = clip_facts(cohort, np.arange(12))
    table = nuisance_clips(cohort.index, facts, units)
    assert {"mean", "sd", "frames"} <= set(table)
    assert not {"height", "channels", "interval", "clips", "type"} & set(table)
    expected = np.mean([cohort.clip(row).frames.reshape(-1)[:: max(1, 12 * 7200 // 50000)].mean() for row in units[0]])
    assert table["mean"][0] == pytest.approx(expected, rel=1e-5)
