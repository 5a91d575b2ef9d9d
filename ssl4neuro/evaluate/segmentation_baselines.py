"""What a network for lesions must beat: finding nothing, and the plain rule that muscle which does not move is the lesion."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter, map_coordinates

from ssl4neuro.errors import UserError

SMOOTHING = (1.0, 2.0, 3.0, 4.0)  # standard deviations tried, pixels
QUANTILES = np.linspace(0.02, 0.98, 49)  # of the ratios in the search region, tried as thresholds
TYPICAL = 0.75  # quantile over the angles: what healthy muscle does, unless three quarters of the ring are ill
RING = 0.5  # share of the ring's typical energy that a radius needs to belong to the search region
SHIFT = 0.1  # of the shorter side: how far the centre of the ring may lie from that of the motion
RADII = (0.1, 0.25)  # of the shorter side: smallest and largest circle that is tried for the left ventricle
REACH = 0.5  # of the shorter side: how far from the centre the ring is looked for


@dataclass
class MotionEnergyThreshold:
    """Little motion within the ring of muscle is lesion.

    Motion energy is a pixel's standard deviation over time. The ring is where its profile over the distance from the centre
    of a circle that moves is high; energy counts relative to that profile, so that the edge of the ring is not
    taken for a lesion. No anatomy is needed to predict. Fitted are the smoothing and the threshold.
    """

    smoothing: float = 2.0  # pixels
    threshold: float = 0.5  # of the ratio to the typical energy at the same distance from the centre

    def fit(
        self,
        clips: Sequence[Float[np.ndarray, "_ height width"]],
        targets: Sequence[Bool[np.ndarray, "height width"]],
        centres: Sequence[tuple[float, float]],
    ) -> "MotionEnergyThreshold":
        """Choose by the Dice of all pixels of the training clips that show a lesion.

        Args:
            clips: of training patients, normalised.
            targets: where the lesion is.
            centres: row and column about which the clips move, pixels.

        Raises:
            UserError: no target shows a lesion.
        """
        shown = [i for i, target in enumerate(targets) if target.any()]
        if not shown:
            raise UserError("motion-energy threshold: no training scan shows the lesion; train on patients who have one")
        best = -1.0
        for smoothing in SMOOTHING:
            ratios = [relative_energy(np.asarray(clips[i]), centres[i], smoothing) for i in shown]
            ratio = np.concatenate([r.ravel() for r in ratios])
            truth = np.concatenate([targets[i].ravel() for i in shown])
            for threshold in np.unique(np.quantile(ratio[np.isfinite(ratio)], QUANTILES)):
                found = ratio < threshold
                dice = 2 * (found & truth).sum() / (found.sum() + truth.sum())
                if dice > best:
                    best, self.smoothing, self.threshold = float(dice), smoothing, float(threshold)
        return self

    def predict(
        self, clip: Float[np.ndarray, "time height width"], centre: tuple[float, float]
    ) -> Float[np.ndarray, "height width"]:
        """Pseudo-probability: 1 where nothing moves, 0.5 at the threshold, 0 outside the ring."""
        ratio = relative_energy(np.asarray(clip), centre, self.smoothing)
        return np.where(np.isfinite(ratio), self.threshold / np.maximum(self.threshold + ratio, 1e-12), 0.0)


def ring_centre(energy: Float[np.ndarray, "height width"], about: tuple[float, float]) -> tuple[float, float]:
    """The place near `about` with a circle around it at least half of which moves most.

    The centroid of the motion is drawn away from the left ventricle by the right one, and from a sector that stands still.
    """
    side = min(energy.shape)
    offsets = np.linspace(-SHIFT, SHIFT, 13) * side
    row, column = np.meshgrid(about[0] + offsets, about[1] + offsets, indexing="ij")
    radius = np.linspace(*RADII, 12)[:, None] * side
    angle = np.arange(24) * 2 * np.pi / 24
    down, along = row[..., None, None] + radius * np.sin(angle), column[..., None, None] + radius * np.cos(angle)
    moving = np.median(map_coordinates(energy, [down, along], order=1, mode="nearest"), axis=-1).max(axis=-1)
    best = np.unravel_index(moving.argmax(), moving.shape)
    return (float(row[best]), float(column[best])) if np.ptp(moving) > 0 else about


def relative_energy(
    clip: Float[np.ndarray, "time height width"], centre: tuple[float, float], smoothing: float
) -> Float[np.ndarray, "height width"]:
    """Motion energy divided by what is typical at the same distance from the centre; infinite outside the ring."""
    energy = gaussian_filter(clip.astype(np.float64).std(axis=0), smoothing)
    centre = ring_centre(energy, centre)
    rows, columns = np.indices(energy.shape)
    distance = np.rint(np.hypot(rows - centre[0], columns - centre[1])).astype(np.int64)
    radii = np.arange(max(1, int(REACH * min(energy.shape))))
    typical = np.array([np.quantile(energy[distance == r], TYPICAL) if (distance == r).any() else 0.0 for r in radii])
    ratio = np.full(energy.shape, np.inf)
    if typical.max() <= 0:
        return ratio  # a still picture
    first = last = int(typical.argmax())
    while first > 0 and typical[first - 1] >= RING * typical.max():
        first -= 1
    while last + 1 < len(typical) and typical[last + 1] >= RING * typical.max():
        last += 1
    ring = (distance >= first) & (distance <= last)
    ratio[ring] = energy[ring] / typical[distance[ring]]
    return ratio
