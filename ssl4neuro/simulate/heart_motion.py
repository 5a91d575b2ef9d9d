"""The motion of the phantom: where each point of a beating slice was at end-diastole, in closed form.

A beat is a curve of contraction (0 at ED, 1 at ES). At each angle the squared radius maps piecewise linearly between the
contours: with slope 1 in the walls, so that every piece of muscle keeps its area (incompressible in the plane; slices follow
the heart along its axis), compressed in the cavities, and stretched outside up to a circle that stays. Twist is a shear of the
angle that depends on the radius alone and keeps areas too. All of it can be inverted exactly.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ssl4neuro.simulate.heart_shape import ANGLES, THETA, Heart

ISOVOLUMIC = 0.035  # of a beat, before the first ejection: frames in it are true ED frames
RESTING = 0.015  # of a beat, at its end


@dataclass(frozen=True)
class Beat:
    """Timing of one heart beat; phases are shares of the beat."""

    duration: float  # s
    offset: float  # phase of frame 0, inside of the isovolumic contraction: nothing has moved yet
    systole: float  # phase of ES
    filling: float  # share of the stroke that flows in early
    kick: float  # length of the atrial contraction

    def contraction(self, phase: Float[np.ndarray, "time"]) -> Float[np.ndarray, "time"]:
        """Share of the stroke volume that has been ejected; exactly 0 in the isovolumic phase."""
        return self._curve(phase, self.systole + 0.05, 0.20)

    def twisting(self, phase: Float[np.ndarray, "time"]) -> Float[np.ndarray, "time"]:
        """Share of the twist: it recoils before the ventricle fills."""
        return self._curve(phase, self.systole, 0.16)

    def _curve(self, phase: Float[np.ndarray, "time"], relaxation: float, early: float) -> Float[np.ndarray, "time"]:
        p = np.asarray(phase) % 1.0
        start = 1 - RESTING - self.kick
        rise = _smooth((p - ISOVOLUMIC) / (self.systole - ISOVOLUMIC))
        fall = self.filling * _smooth((p - relaxation) / early)
        late = (1 - self.filling) * _smooth((p - start) / self.kick)
        return rise - fall - late

    def phases(self, frames: int) -> Float[np.ndarray, "time"]:
        """Phase of each frame."""
        return self.offset + np.arange(frames) / frames


@dataclass(frozen=True)
class SliceMotion:
    """The motion of slice `number` over the frames of a scan."""

    heart: Heart
    number: int
    contraction: Float[np.ndarray, "time"]
    rv_contraction: Float[np.ndarray, "time"]
    twisting: Float[np.ndarray, "time"]

    def contours(self, t: int) -> Float[np.ndarray, "contours angles"]:
        """Radii (mm) by material angle at frame `t`: endocardium, epicardium, RV free wall inside and outside."""
        return np.sqrt(self._squared(t))

    def to_material(
        self, r: Float[np.ndarray, "*points"], theta: Float[np.ndarray, "*points"], t: int
    ) -> tuple[Float[np.ndarray, "*points"], Float[np.ndarray, "*points"]]:
        """Radius and angle at ED of what is at (r, theta) in frame `t`."""
        angle = theta - self._turn(r, t)
        index = np.rint(angle * (ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES
        now, then, far = self._squared(t), self._at_rest, self.heart.far[self.number] ** 2
        # Slopes of the pieces: cavity, wall, RV cavity, RV wall, surroundings; each kink adds its change of slope.
        slope = then[0] / now[0]
        full = then[2] - then[1]
        rv = np.divide(full, now[2] - now[1], out=np.ones_like(full), where=full > 1e-6)
        outside = (far - then[3]) / (far - now[3])
        squared = np.minimum(r**2, far)
        out = squared * slope.astype(r.dtype)[index]
        for knot, change in zip(now, (1 - slope, rv - 1, 1 - rv, outside - 1), strict=True):
            kink, bend = knot.astype(r.dtype)[index], change.astype(r.dtype)[index]
            out += np.maximum(squared - kink, 0) * bend
        return np.sqrt(np.maximum(out + np.maximum(r**2 - far, 0), 0)), angle

    def to_frame(
        self, radius: Float[np.ndarray, "points"], angle: Float[np.ndarray, "points"], t: int
    ) -> tuple[Float[np.ndarray, "points"], Float[np.ndarray, "points"]]:
        """Where the material points (radius, angle at ED) are in frame `t`: the inverse of `to_material`."""
        index = np.rint(angle * (ANGLES / (2 * np.pi))).astype(np.int64) % ANGLES
        now, then, far = self._squared(t), self._at_rest, self.heart.far[self.number] ** 2
        r = np.empty(len(radius))
        for i, (big, k) in enumerate(zip(radius**2, index, strict=True)):
            r[i] = big if big > far else np.interp(big, [0, *then[:, k], far], [0, *now[:, k], far])
        r = np.sqrt(r)
        return r, angle + self._turn(r, t)

    @property
    def _at_rest(self) -> Float[np.ndarray, "contours angles"]:
        h, k = self.heart, self.number
        return np.stack([h.endo[k], h.epi[k], h.rv[k], h.rv_epi[k]]) ** 2

    def _squared(self, t: int) -> Float[np.ndarray, "contours angles"]:
        endo, epi, rv, rv_epi = self._at_rest
        endo_now = endo * (1 - self.heart.ejected[self.number] * self.contraction[t])
        epi_now = epi + endo_now - endo
        rv_now = epi_now + (rv - epi) * (1 - self.heart.rv_ejected * self.rv_contraction[t])
        return np.stack([endo_now, epi_now, rv_now, rv_now + rv_epi - rv])

    def _turn(self, r: Float[np.ndarray, "*points"], t: int) -> Float[np.ndarray, "*points"]:
        """Angle (rad) by which a ring of radius `r` has turned; the tissue around the left ventricle holds it back."""
        outer = float(self.heart.epi[self.number].max())
        held = _smooth((r - outer) / 25.0)
        return ((1 - held) * (self.heart.twist[self.number] * self.twisting[t])).astype(r.dtype)


def polar(
    shape: tuple[int, int], spacing: float, centre: tuple[float, float]
) -> tuple[Float[np.ndarray, "rows columns"], Float[np.ndarray, "rows columns"]]:
    """Radius (mm) and angle of each pixel about `centre` (row, column), float32."""
    rows = (np.arange(shape[0], dtype=np.float32) - np.float32(centre[0]))[:, None] * np.float32(spacing)
    columns = (np.arange(shape[1], dtype=np.float32) - np.float32(centre[1])) * np.float32(spacing)
    return np.hypot(rows, columns), np.arctan2(rows, columns)


def labels(
    motion: SliceMotion, r: Float[np.ndarray, "rows columns"], theta: Float[np.ndarray, "rows columns"], t: int
) -> np.ndarray:
    """0 background, 1 RV cavity, 2 LV myocardium, 3 LV cavity, uint8 [rows, columns], by the place of the pixel's middle."""
    radius, angle = motion.to_material(r, theta, t)
    index = np.rint(angle * (ANGLES / (2 * np.pi))).astype(np.int64) % ANGLES
    h, k = motion.heart, motion.number
    out = np.zeros(r.shape, dtype=np.uint8)
    out[radius < h.rv[k][index]] = 1
    out[radius < h.epi[k][index]] = 2
    out[radius < h.endo[k][index]] = 3
    return out


def region_mask(
    motion: SliceMotion,
    profile: Float[np.ndarray, "angles"],
    r: Float[np.ndarray, "rows columns"],
    theta: Float[np.ndarray, "rows columns"],
) -> np.ndarray:
    """1 in the muscle of frame 0 where the region's `profile` (of this slice) is above one half, uint8 [rows, columns]."""
    inside = np.interp(theta, THETA, profile, period=2 * np.pi) > 0.5
    return ((labels(motion, r, theta, 0) == 2) & inside).astype(np.uint8)


def _smooth(x: Float[np.ndarray, "*points"]) -> Float[np.ndarray, "*points"]:
    """0 below 0, 1 above 1, smooth between."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)
