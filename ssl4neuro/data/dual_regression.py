"""Dual regression: subject courses and maps of given group maps, two least-squares steps per scan.

Nickerson, Smith, Öngür, Beckmann (2017), "Using dual regression to investigate network shape and amplitude in functional
connectivity analyses", Front. Neurosci. 11:115.

1. Every volume is regressed on the group maps (demeaned over the mask): courses.
2. Every voxel's series is regressed on these courses, freed of trend and confounds: the subject's maps.

Confounds and filters act on the courses only, never on the 4-D data: step 1 works within volumes and cleaning within voxels,
so they commute, and in step 2 a course without confounds sees nothing of them in the data (Frisch–Waugh–Lovell). That is exact
for detrending and confounds, and for a band-pass as far as its band is sharp.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32

from ssl4neuro.errors import UserError

Courses = Float[np.ndarray, "components time"]


@dataclass(frozen=True)
class SpatialRegression:
    """Step 1 for any number of scans: the pseudo-inverse of the maps is computed once."""

    inverse: Float32[np.ndarray, "components voxels"]

    @classmethod
    def of(
        cls, maps: Float[np.ndarray, "components voxels"], name: str, without: Bool[np.ndarray, "voxels"] | None = None
    ) -> "SpatialRegression":
        """Prepare the regression on these in-mask maps; voxels `without` (a lesion) take no part.

        Raises:
            UserError: more maps than voxels, a map that is constant within the mask, or maps that depend on each other.
        """
        if without is not None:
            part = cls.of(maps[:, ~without], name).inverse
            inverse = np.zeros(maps.shape, dtype=np.float32)
            inverse[:, ~without] = part
            return cls(inverse)
        centred = maps.astype(np.float64) - maps.mean(axis=1, keepdims=True, dtype=np.float64)
        size = np.linalg.norm(centred, axis=1)
        empty = np.flatnonzero(size <= 1e-6 * np.linalg.norm(maps, axis=1))
        if len(empty):
            raise UserError(
                f"{name}: map {empty[0] + 1} is constant within the mask; check that mask and maps are in one space"
            )
        # Unit length first, so that the condition number speaks of the maps' shapes and not of their units.
        gram = (centred / size[:, None]) @ (centred / size[:, None]).T
        if centred.shape[1] <= len(centred) or np.linalg.eigvalsh(gram)[0] < 1e-8:
            raise UserError(f"{name}: the {len(maps)} maps depend linearly on each other within the mask; leave out copies")
        inverse = np.linalg.solve(gram, centred / size[:, None]) / size[:, None]
        return cls(inverse.astype(np.float32))

    def courses(self, scan: Float32[np.ndarray, "time voxels"]) -> Courses:
        """Courses of the maps in one scan. The rows of the inverse sum to 0, so volumes need no demeaning."""
        return (scan @ self.inverse.T).T.astype(np.float64)


@dataclass(frozen=True)
class DualRegression:
    """Result of both steps for one scan."""

    courses: Courses  # cleaned, not scaled
    maps: Float32[np.ndarray, "components voxels"]  # regression weights for courses of unit variance, in units of the scan's sd
    tsnr: float  # median over the mask of mean / sd over time; NaN where the data carry no mean


def dual_regression(
    scan: Float32[np.ndarray, "time voxels"],
    spatial: SpatialRegression,
    name: str,
    clean: Callable[[Courses], Courses],
    kept: np.ndarray | None = None,
) -> DualRegression:
    """Courses and maps of one scan. `scan` is used up: it is centred and scaled in place, to hold it in memory only once.

    Args:
        clean: detrends (at least) the courses, and may filter, regress out confounds and scrub.
        kept: indices of the volumes that `clean` keeps, None for all.

    Raises:
        UserError: no more volumes than maps, or nothing varies.
    """
    mean = scan.mean(axis=0, dtype=np.float64).astype(np.float32)
    scan -= mean
    variance = np.einsum("tv,tv->v", scan, scan, dtype=np.float32) / np.float32(len(scan))
    # Raw intensities differ by factors between scanners; one scale per scan keeps float32 sums far from its limits.
    scale = float(np.sqrt(variance.mean(dtype=np.float64)))
    if not scale > 0:
        raise UserError(f"{name}: its volumes are all the same; give the 4-D functional image")
    scan *= np.float32(1 / scale)
    courses = clean(spatial.courses(scan))
    components, volumes = courses.shape
    if volumes <= components + 1:
        raise UserError(
            f"{name}: {volumes} volumes are too few for {components} maps; dual regression needs more volumes than maps"
        )
    sd = courses.std(axis=1, keepdims=True)
    design = courses / np.where(sd > 0, sd, 1)
    inverse = np.linalg.pinv(design.T).astype(np.float32)
    maps = inverse @ (scan if kept is None else scan[kept])
    return DualRegression(courses, maps, _tsnr(mean, variance))


def _tsnr(mean: Float32[np.ndarray, "voxels"], variance: Float32[np.ndarray, "voxels"]) -> float:
    measured = variance > 0
    ratio = np.abs(mean[measured]) / np.sqrt(variance[measured])
    value = float(np.median(ratio)) if len(ratio) else float("nan")
    return value if value > 1e-3 else float("nan")  # demeaned data: there is no baseline to compare the noise with
