"""What the courses of a scan say of its acquisition: whole-brain averages without any pattern of components.

Where no table knows the repetition time, the filter or the motion, these still show in every course: in the spectrum that all
components share, in the memory from one volume to the next, in volumes at which all of them jump. A result that these few
numbers reach needs no network.
"""

import numpy as np
from jaxtyping import Float
from scipy import stats

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.evaluate.connectivity import BANDS_HZ, Layout, band_powers, scan_courses, stacked, unit_trs

NAMES = (*[f"log power {low:g} to {high:g} Hz" for low, high in BANDS_HZ], "lag-one autocorrelation", "kurtosis", "spikes")
SPIKE = 3.0  # robust standard deviations of DVARS above its median


def course_quality(courses: Float[np.ndarray, "components time"], tr: float) -> Float[np.ndarray, "numbers"]:
    """The numbers called `NAMES`, of one scan.

    Spikes: log of the volumes whose DVARS (root mean square over components of the difference to the volume before; Power et
    al. 2012) stands out, plus one.

    Args:
        courses: of all components, in any unit.
        tr: s, or NaN where unknown.
    """
    x = np.asarray(courses, dtype=np.float64)
    x = (x - x.mean(axis=1, keepdims=True)) / np.maximum(x.std(axis=1, keepdims=True), 1e-12)
    dvars = np.sqrt((np.diff(x, axis=1) ** 2).mean(axis=0))
    limit = np.median(dvars) + SPIKE * stats.median_abs_deviation(dvars, scale="normal")
    shared = np.mean([band_powers(course, tr) for course in x], axis=0)
    kurtosis = float((x**4).mean(axis=1).mean() - 3)
    return np.array([*shared, kurtosis, np.log1p((dvars > limit).sum())])


def unit_quality(cohort: Cohort, parts: Layout) -> Float[np.ndarray, "units numbers"]:
    """Course quality of every unit, the mean over its scans."""
    found = [
        np.mean([course_quality(stacked(scan), tr) for scan, tr in zip(scans, trs, strict=True)], axis=0)
        for scans, trs in zip(scan_courses(cohort, parts), unit_trs(cohort, parts), strict=True)
    ]
    return np.stack(found).astype(np.float32)
