"""Connectivity in the tangent space of a group of scans, by nilearn.

Varoquaux et al. (2010), "Detection of brain functional-connectivity difference in post-stroke patients using group-level
covariance modeling", MICCAI. Covariances are shrunk (Ledoit and Wolf 2004), so that scans shorter than they have components can
be used; their geometric mean over the training scans is the point at which differences between scans are measured.
"""

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from sklearn.covariance import ledoit_wolf

Course = Float[np.ndarray, "_ components"]  # scans may differ in length
SMALLEST = 1e-6  # eigenvalue of a correlation matrix, relative to the largest one: below, its logarithm is noise


class TangentSpace:
    """The tangent space at the geometric mean of training scans, all with the same components."""

    def __init__(self, train: Sequence[Course]) -> None:
        from nilearn.connectome import ConnectivityMeasure

        self._measure = ConnectivityMeasure(kind="tangent", vectorize=True, standardize=False)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Maximum number of iterations")  # near enough to measure from
            self._measure.fit([_standardised(scan) for scan in train])

    def vectors(self, scans: Sequence[Course]) -> Float[np.ndarray, "scans entries"]:
        """Lower triangle of each scan's matrix logarithm; the diagonal divided by √2, so that distances stay in proportion."""
        again = [*scans, scans[0]]  # nilearn refuses a single scan, though each is transformed on its own
        return np.asarray(self._measure.transform([_standardised(scan) for scan in again])[:-1], dtype=np.float32)


def singular(scans: Sequence[Course]) -> int:
    """Number of scans whose shrunk correlation matrix is singular to numerical precision: two components with one course."""
    count = 0
    for scan in scans:
        power = np.linalg.eigvalsh(ledoit_wolf(_standardised(scan))[0])
        count += bool(power[0] < SMALLEST * power[-1])
    return count


def _standardised(scan: Course) -> Course:
    centred = np.asarray(scan, dtype=np.float64) - scan.mean(axis=0, dtype=np.float64)
    return centred / np.maximum(centred.std(axis=0), 1e-12)
