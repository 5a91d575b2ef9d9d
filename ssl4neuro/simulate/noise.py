"""Smooth random fields on a masked grid, and their covariance as an operator (for the oracle)."""

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter

from ssl4neuro.simulate.networks import Brain

TRUNCATE = 3.0  # the kernel ends at 3 sigma; fields and covariance use the same kernel


class SmoothField:
    """White noise filtered with a Gaussian of `fwhm` mm: unit variance in every voxel, up to the edge of the brain.

    The white noise is drawn on a grid padded by the kernel's radius, so that no voxel sees a border; therefore
    `covariance` is exact, not an approximation.
    """

    def __init__(self, brain: Brain, fwhm: float) -> None:
        self.sigma = fwhm / np.sqrt(8 * np.log(2)) / brain.resolution  # voxels
        self.pad = int(TRUNCATE * self.sigma + 0.5)
        inside = np.argwhere(brain.mask)
        self.box = tuple(slice(lo, hi + 1) for lo, hi in zip(inside.min(axis=0), inside.max(axis=0), strict=True))
        self.mask = brain.mask[self.box]  # nilearn's grid has an empty border that would cost half of the time
        self.shape = tuple(n + 2 * self.pad for n in self.mask.shape)
        kernel = np.exp(-0.5 * (np.arange(-self.pad, self.pad + 1) / self.sigma) ** 2)
        self.norm = float(((kernel / kernel.sum()) ** 2).sum() ** 1.5)  # sd of the filtered field

    def draw(self, rng: np.random.Generator, count: int) -> Float[np.ndarray, "{count} voxels"]:
        """`count` independent fields, float32."""
        white = rng.standard_normal((count, *self.shape), dtype=np.float32)
        return self._crop(self._filter(white)) / np.float32(self.norm)

    def covariance(self, x: Float[np.ndarray, "*columns voxels"]) -> Float[np.ndarray, "*columns voxels"]:
        """The field's covariance matrix times each row of `x`, without forming it."""
        padded = np.zeros((*x.shape[:-1], *self.shape), dtype=x.dtype)
        padded[self._inside()][..., self.mask] = x
        return self._crop(self._filter(self._filter(padded))) / self.norm**2

    def _filter(self, grid: np.ndarray) -> np.ndarray:
        sigma = (0.0,) * (grid.ndim - 3) + (self.sigma,) * 3
        return gaussian_filter(grid, sigma, mode="constant", truncate=TRUNCATE)

    def _inside(self) -> tuple:
        return (..., *(slice(self.pad, self.pad + n) for n in self.mask.shape))

    def _crop(self, grid: np.ndarray) -> np.ndarray:
        return grid[self._inside()][..., self.mask]
