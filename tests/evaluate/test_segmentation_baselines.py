"""Motion-energy threshold on a ring that contracts but for a sector."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ssl4neuro.data.clip_rows import moving_centre
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.segmentation_baselines import MotionEnergyThreshold, ring_centre


def beat(seed: int, ill: bool = True) -> tuple[np.ndarray, np.ndarray, tuple[float, float]]:
    """A bright ring whose radius falls by a quarter, except in a sector; the sector at the first frame."""
    rng = np.random.default_rng(seed)
    middle, start = rng.uniform(28, 36, 2), rng.uniform(-np.pi, np.pi)
    rows, columns = np.indices((64, 64))
    distance = np.hypot(rows - middle[0], columns - middle[1])
    angle = (np.arctan2(rows - middle[0], columns - middle[1]) - start) % (2 * np.pi)
    sector = (angle < 1.3) & ill
    frames = []
    for phase in np.arange(10) / 10:
        squeeze = np.where(sector, 1.0, 1 - 0.25 * np.sin(np.pi * phase) ** 2)
        frames.append(1 / (1 + np.exp(np.abs(distance - 14 * squeeze) - 3)))
    clip = np.stack(frames) + 0.03 * rng.normal(size=(10, 64, 64))
    return clip.astype(np.float32), sector & (np.abs(distance - 14) < 3), moving_centre(clip)


def test_finds_the_sector_that_does_not_move() -> None:
    clips, targets, centres = zip(*(beat(seed, seed % 3 > 0) for seed in range(9)), strict=True)
    model = MotionEnergyThreshold().fit(clips, targets, centres)
    hits = whole = 0
    for seed in range(100, 106):
        clip, target, centre = beat(seed)
        found = model.predict(clip, centre)
        assert 0 <= found.min() <= found.max() <= 1
        assert roc_auc_score(target.ravel(), found.ravel()) > 0.95
        hits, whole = hits + 2 * ((found > 0.5) & target).sum(), whole + (found > 0.5).sum() + target.sum()
    chance = 2 * target.mean() / (1 + target.mean())  # everything is lesion
    assert hits / whole > 4 * chance
    assert hits / whole > 0.6


def test_centre_of_the_ring_is_not_that_of_the_motion() -> None:
    for seed in range(5):
        middle = np.random.default_rng(seed).uniform(28, 36, 2)
        clip, _, centre = beat(seed)
        assert np.hypot(*(np.array(centre) - middle)) > 3
        assert np.hypot(*(np.array(ring_centre(clip.std(axis=0).astype(float), centre)) - middle)) < 1


def test_fitted_threshold_is_the_best_of_those_tried() -> None:
    clip, target, centre = beat(1)
    model = MotionEnergyThreshold().fit([clip], [target], [centre])

    def dice(threshold: float) -> float:
        other = MotionEnergyThreshold(model.smoothing, threshold).predict(clip, centre) > 0.5
        return 2 * (other & target).sum() / (other.sum() + target.sum())

    assert dice(model.threshold) >= max(dice(model.threshold * factor) for factor in (0.4, 0.7, 1.5, 2.5))


def test_no_lesion_to_learn_from_and_nothing_that_moves() -> None:
    clip, target, centre = beat(0, ill=False)
    with pytest.raises(UserError, match="no training scan shows the lesion"):
        MotionEnergyThreshold().fit([clip], [target], [centre])
    assert not MotionEnergyThreshold().predict(np.ones((4, 16, 20)), (8.0, 8.0)).any()
