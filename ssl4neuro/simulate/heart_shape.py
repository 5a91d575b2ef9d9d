"""A short-axis heart at end-diastole: its contours by slice and angle, and how much of its cavity each segment ejects.

Polar coordinates (mm, rad) about the axis of the left ventricle; angle 0 points to rising columns, pi/2 to rising rows, so
the septum lies near pi. Angles are tabulated at `ANGLES` equal steps. Heights run from 0 at the base to 1 at the apex.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ssl4neuro.simulate.cine_settings import ContractionModel

ANGLES = 720
THETA = np.arange(ANGLES) * (2 * np.pi / ANGLES)
WAVES = 8  # of the healthy variation around the ring
MARGIN = 30.0  # mm of tissue outside of the heart that moves with it
MOST = 0.90  # share of its cavity area that a segment can eject
RV_WALL = 3.0  # mm
RV_HALF_ANGLE = 1.15  # rad, of the sector in which the right ventricle lies


@dataclass(frozen=True)
class Region:
    """A hypokinetic region: a sector of the wall over a range of heights, with soft borders."""

    angle: float  # rad, of its middle
    half_angle: float  # rad
    height: float  # of its middle
    half_height: float
    severity: float  # share of the contraction that is lost in its middle, at effect 1

    def profile(
        self, theta: Float[np.ndarray, "angles"], heights: Float[np.ndarray, "slices"], model: ContractionModel
    ) -> Float[np.ndarray, "slices angles"]:
        """1 inside, 0 outside, one half on its border."""
        away = np.abs((theta - self.angle + np.pi) % (2 * np.pi) - np.pi)
        around = _step((self.half_angle - away) / model.edge_angle)
        along = _step((self.half_height - np.abs(heights - self.height)) / model.edge_height)
        return along[:, None] * around


@dataclass(frozen=True)
class Heart:
    """Contours at ED (mm from the axis of the left ventricle) and contraction; rows are slices from base to apex."""

    spacing: float  # mm between slices
    heights: Float[np.ndarray, "slices"]
    endo: Float[np.ndarray, "slices angles"]
    epi: Float[np.ndarray, "slices angles"]
    rv: Float[np.ndarray, "slices angles"]  # inner side of the free wall; the epicardium where there is no RV
    rv_epi: Float[np.ndarray, "slices angles"]
    far: Float[np.ndarray, "slices"]  # nothing moves beyond
    ejected: Float[np.ndarray, "slices angles"]  # share of the cavity's area at this angle that is gone at ES
    rv_ejected: float
    twist: Float[np.ndarray, "slices"]  # rad at ES, counted as angles are; base and apex turn in opposite directions

    def lv_volume(self, contraction: Float[np.ndarray, "time"]) -> Float[np.ndarray, "time"]:
        """Volume (ml) of the left ventricle's cavity in the imaged slices; `contraction` is 0 at ED and 1 at ES."""
        sector = np.pi / ANGLES * self.endo**2 * self.spacing / 1000
        return np.sum(sector) - np.asarray(contraction) * np.sum(sector * self.ejected)

    def rv_volume(self, contraction: Float[np.ndarray, "time"]) -> Float[np.ndarray, "time"]:
        """The same of the right ventricle."""
        full = np.sum(self.rv**2 - self.epi**2) * np.pi / ANGLES * self.spacing / 1000
        return full * (1 - self.rv_ejected * np.asarray(contraction))

    def wall_volume(self) -> float:
        """Volume (ml) of the left ventricle's myocardium, the same at all times."""
        return float(np.sum(self.epi**2 - self.endo**2) * np.pi / ANGLES * self.spacing / 1000)


@dataclass(frozen=True)
class Body:
    """Sizes of one heart before it is cut into slices."""

    edv: float  # ml
    ef: float
    wall: float  # mm
    septal: float
    rv_edv: float  # ml
    rv_ef: float
    length: float  # mm, of the ventricle from base to apex
    septum: float  # rad, where the middle of the septum lies
    oval: float  # relative amplitude of the second harmonic of the contours
    oval_angle: float  # rad
    twist: tuple[float, float]  # rad at base and apex


def make_heart(
    body: Body, slices: int, variation: Float[np.ndarray, "slices angles"], loss: Float[np.ndarray, "slices angles"]
) -> Heart:
    """Contours for the sizes of `body`, and contraction for its ejection fractions.

    Args:
        slices: number of slices, evenly over the length (at most 10 mm apart).
        variation: healthy regional variation of the contraction, relative.
        loss: share of the contraction lost to a hypokinetic region. The remote muscle makes up for it.
    """
    spacing = round(min(body.length / slices, 10.0), 2)
    heights = 0.5 + (np.arange(slices) - (slices - 1) / 2) * spacing / body.length
    fine = (np.arange(200) + 0.5) / 200
    oval = 1 + body.oval * np.cos(2 * (THETA - body.oval_angle))
    scale = body.edv * 1000 / (body.length * np.mean(taper(fine) ** 2) * np.mean(oval**2) * np.pi)
    endo = np.sqrt(scale) * taper(heights)[:, None] * oval
    away = np.abs((THETA - body.septum + np.pi) % (2 * np.pi) - np.pi)
    thickness = body.wall * (1 - 0.15 * heights)[:, None] * (1 + body.septal * np.exp(-0.5 * (away / 0.8) ** 2))
    epi = endo + thickness
    share = np.where(away < RV_HALF_ANGLE, np.cos(away / RV_HALF_ANGLE * np.pi / 2), 0.0) ** 0.8
    rv = _free_wall(body, epi, share, heights, spacing)
    rv_epi = rv + RV_WALL * np.minimum(1, 3 * share)
    pattern = (1 + 0.2 * (heights - 0.5))[:, None] * np.maximum(1 + variation - loss, -0.3)
    ejected = np.minimum(body.ef * np.sum(endo**2) / np.sum(endo**2 * pattern) * pattern, MOST)
    base, apex = body.twist
    return Heart(
        spacing=spacing,
        heights=heights,
        endo=endo,
        epi=epi,
        rv=rv,
        rv_epi=rv_epi,
        far=rv_epi.max(axis=1) + MARGIN,
        ejected=ejected,
        rv_ejected=body.rv_ef,
        twist=base + (apex - base) * heights,
    )


def taper(heights: Float[np.ndarray, "slices"]) -> Float[np.ndarray, "slices"]:
    """Relative radius: a blunt half ellipsoid, 1 at the base and about one half at the last slice."""
    return np.sqrt(1 - 0.75 * np.clip(heights, 0, 1.2) ** 2.2)


def _free_wall(
    body: Body,
    epi: Float[np.ndarray, "slices angles"],
    share: Float[np.ndarray, "angles"],
    heights: Float[np.ndarray, "slices"],
    spacing: float,
) -> Float[np.ndarray, "slices angles"]:
    """The right ventricle's free wall, at the width that gives its volume (bisection: the volume grows with the width)."""
    slab = min(1.0, len(heights) * spacing / body.length)  # fewer slices than the heart has hold less of it
    shape = (1 - 0.65 * heights**1.5)[:, None] * share
    low, high = 0.0, 120.0
    for _ in range(40):
        width = (low + high) / 2
        volume = np.sum((epi + width * shape) ** 2 - epi**2) * np.pi / ANGLES * spacing / 1000
        low, high = (width, high) if volume < body.rv_edv * slab else (low, width)
    return epi + width * shape


def scatter_spectrum(length: float) -> Float[np.ndarray, "waves"]:
    """Variance of each wave (1, 2, ... around the ring) of a field of unit variance and this correlation length (rad)."""
    power = np.exp(-0.5 * (np.arange(1, WAVES + 1) * length) ** 2)
    return power / power.sum()


def axial_covariance(heights_mm: Float[np.ndarray, "slices"], length: float) -> Float[np.ndarray, "slices slices"]:
    """Correlation of the healthy variation between slices."""
    return np.exp(-0.5 * ((heights_mm[:, None] - heights_mm[None]) / length) ** 2)


def draw_variation(
    rng: np.random.Generator, heights_mm: Float[np.ndarray, "slices"], model: ContractionModel
) -> Float[np.ndarray, "slices angles"]:
    """Healthy regional variation of the contraction: smooth around the ring (mean 0 in each slice) and along the axis."""
    root = np.linalg.cholesky(axial_covariance(heights_mm, model.scatter_height) + 1e-9 * np.eye(len(heights_mm)))
    power = np.sqrt(scatter_spectrum(model.scatter_angle))
    sine, cosine = (root @ rng.standard_normal((len(heights_mm), WAVES)) * power for _ in range(2))
    waves = np.arange(1, WAVES + 1)[:, None] * THETA
    return model.scatter * (cosine @ np.cos(waves) + sine @ np.sin(waves))


def _step(x: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    return 0.5 * (1 + np.tanh(x))
