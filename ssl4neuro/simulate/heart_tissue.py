"""What the tissue of a slice looks like: one image at end-diastole, which the motion then carries along.

Muscle, blood and surroundings have textures that are fixed in the material, so that whoever sees two frames sees the motion.
Nothing here knows about hypokinesia.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter, map_coordinates

from ssl4neuro.simulate.cine_settings import Scanner
from ssl4neuro.simulate.heart_shape import ANGLES, Heart

STEP = 0.8  # mm, of the grid on which the tissue is drawn
MUSCLE_TEXTURE, BLOOD_TEXTURE, BODY_TEXTURE = 0.12, 0.06, 0.20  # relative sd
LUNG, LIVER, BODY = 0.10, 0.40, 0.50  # intensities, in units of blood at the first site


@dataclass(frozen=True)
class Surroundings:
    """Organs around one heart: standard normal numbers that shift and scale them, and the papillary muscles' angles (rad)."""

    organs: Float[np.ndarray, "10"]
    papillary: Float[np.ndarray, "2"]


class Tissue:
    """Draws the slices of one heart on a square grid of `STEP` mm about the axis of the left ventricle."""

    def __init__(self, heart: Heart, surroundings: Surroundings, scanner: Scanner, field_of_view: float) -> None:
        self.heart, self.surroundings, self.scanner = heart, surroundings, scanner
        self.half = int(np.ceil((0.68 * field_of_view + 15) / STEP))
        axis = (np.arange(2 * self.half + 1, dtype=np.float32) - self.half) * np.float32(STEP)
        self.y, self.x = axis[:, None], axis[None, :]
        self.r, theta = np.hypot(self.y, self.x), np.arctan2(self.y, self.x)
        self.theta = theta
        self.index = np.rint(theta * (ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES

    def draw(self, rng: np.random.Generator, number: int) -> Float[np.ndarray, "rows columns"]:
        """Intensity of slice `number` at ED."""
        h, s, k = self.heart, self.scanner, number
        fine, coarse = (self._texture(rng, mm) for mm in (1.8, 7.0))
        body = self._surroundings(k) * (1 + BODY_TEXTURE * (0.5 * fine + 0.7 * coarse))
        muscle = s.myocardium * (1 + MUSCLE_TEXTURE * (0.9 * fine + 0.3 * coarse))
        blood = s.blood * (1 + BLOOD_TEXTURE * (0.6 * fine + 0.6 * coarse))
        cavity = self._cover(blood, muscle, self._papillary(k))
        image = body
        fat = np.minimum(3.5, 1.2 * np.maximum(coarse + 0.6, 0))  # mm, of uneven thickness
        image = self._cover(image, np.full_like(image, s.fat), _soft(h.rv_epi[k].astype(np.float32)[self.index] + fat - self.r))
        layers = ((h.rv_epi, muscle), (h.rv, 0.96 * blood), (h.epi, muscle), (h.endo, cavity))
        for contour, tissue in layers:
            image = self._cover(image, tissue, _soft(contour[k].astype(np.float32)[self.index] - self.r))
        return image.astype(np.float32)

    def sample(
        self,
        image: Float[np.ndarray, "rows columns"],
        radius: Float[np.ndarray, "*points"],
        angle: Float[np.ndarray, "*points"],
    ) -> Float[np.ndarray, "*points"]:
        """Intensity at material points, bilinear."""
        scaled = radius * np.float32(1 / STEP)
        places = np.stack([scaled * np.sin(angle) + self.half, scaled * np.cos(angle) + self.half])
        return map_coordinates(image, places, order=1, mode="nearest", output=np.float32)

    def _texture(self, rng: np.random.Generator, sd: float) -> Float[np.ndarray, "rows columns"]:
        """A smooth field of unit variance; `sd` in mm."""
        white = rng.standard_normal(self.r.shape, dtype=np.float32)
        sigma = sd / STEP
        return gaussian_filter(white, sigma, mode="wrap", truncate=3.0) * np.float32(2 * np.sqrt(np.pi) * sigma)

    def _cover(self, below: np.ndarray, above: np.ndarray, share: np.ndarray) -> np.ndarray:
        return below + share * (above - below)

    def _surroundings(self, k: int) -> Float[np.ndarray, "rows columns"]:
        """Muscle and fat of the chest, lungs beside the heart, the liver below, the chest wall in front."""
        z, height, fat = self.surroundings.organs, float(self.heart.heights[k]), self.scanner.fat
        reach = float(self.heart.far[k])
        image = np.full_like(self.r, BODY)
        wall = 0.8 * self.y + 0.6 * self.x + reach * 0.80 + 8 + 2 * z[0]  # mm behind the chest wall, which lies upper left
        image = self._cover(image, np.full_like(image, fat), _soft(-wall, 3.0) * _soft(wall + 16 + 2 * z[1], 3.0))
        lung = self._ellipse(reach * 0.85 + 30 + 4 * z[2], 10 + 8 * z[3], 45 + 4 * z[4], 95.0)
        image = self._cover(image, np.full_like(image, LUNG), lung)
        other = self._ellipse(-25 + 6 * z[5], -reach * 1.05 - 12, 60.0, 24 + 3 * z[6])
        image = self._cover(image, np.full_like(image, 1.6 * LUNG), other * _soft(wall, 3.0))
        liver = self._ellipse(-30 + 8 * z[7], reach * 0.80 + 28 - 8 * height + 3 * z[8], 62 + 4 * z[9], 34.0)
        return self._cover(image, np.full_like(image, LIVER), liver)

    def _papillary(self, k: int) -> Float[np.ndarray, "rows columns"]:
        """Two papillary muscles in the middle of the ventricle."""
        height = float(self.heart.heights[k])
        radius = 0.62 * float(self.heart.endo[k].mean())
        size = 4.2 * np.exp(-0.5 * ((height - 0.55) / 0.22) ** 2)  # mm
        share = np.zeros_like(self.r)
        for angle in self.surroundings.papillary:
            away = np.hypot(self.x - radius * np.cos(angle), self.y - radius * np.sin(angle))
            share = np.maximum(share, _soft(np.float32(size) - away) * min(1.0, size / 2))
        return share

    def _ellipse(self, x: float, y: float, a: float, b: float) -> Float[np.ndarray, "rows columns"]:
        distance = (1 - np.hypot((self.x - x) / a, (self.y - y) / b)) * min(a, b)
        return _soft(distance, 3.0)


def _soft(distance: Float[np.ndarray, "*points"], width: float = 1.0) -> Float[np.ndarray, "*points"]:
    """Share of a pixel that lies inside, by the distance (mm) to the border, positive inside."""
    return np.clip(distance / width + 0.5, 0, 1)
