"""Nine numbers of a time course that do not depend on its sign, its length or its repetition time (network_state.md §5, S)."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats

from ssl4neuro.encoders.spectrum import band_power

NAMES = (
    "power 0.008-0.027 Hz", "power 0.027-0.073 Hz", "power 0.073-0.1 Hz", "power 0.1-0.15 Hz", "power 0.15-0.25 Hz",
    "fALFF", "spectral entropy", "AR(1)", "kurtosis",
)  # fmt: skip
EDGES = (0.008, 0.027, 0.073, 0.1, 0.15, 0.25)  # Hz
LOW, HIGH = 0.01, 0.08  # Hz, the numerator of fALFF (Zou et al., J Neurosci Methods 172, 2008)
TOP = 0.25  # Hz, Nyquist at 2 s: nothing above it counts, so that faster scans are not richer
FINE = 32  # bands of the entropy
LAG = 2.0  # s
FFT = 4096
FLOOR = 1e-4
BLOCK = 512


def course_features(
    courses: Sequence[Float[np.ndarray, "_"]], tr: Float[np.ndarray, "courses"]
) -> Float[np.ndarray, "courses 9"]:
    """The numbers of `NAMES` for each course.

    Powers are log10 densities relative to the mean density from 0.008 to 0.25 Hz; 0 for a band above the Nyquist frequency.
    fALFF is the share of the amplitude between 0.01 and 0.08 Hz, spectral entropy is 1 for white noise, AR(1) is the
    autocorrelation at a lag of 2 s, one volume at the study's usual repetition time, kurtosis is in excess of a normal one.

    Args:
        courses: lengths may differ.
        tr: s; where unknown (NaN), 2 s is assumed.
    """
    tr = np.where(np.isnan(tr), 2.0, tr)
    parts = [_block(courses[i : i + BLOCK], tr[i : i + BLOCK]) for i in range(0, len(courses), BLOCK)]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, len(NAMES)), dtype=np.float32)


def _block(courses: Sequence[np.ndarray], tr: np.ndarray) -> np.ndarray:
    lengths = np.array([len(course) for course in courses])
    valid = np.arange(lengths.max()) < lengths[:, None]
    x = np.zeros(valid.shape)
    x[valid] = np.concatenate(courses)
    x = np.where(valid, x - (x.sum(1) / lengths)[:, None], 0.0)
    sd = np.sqrt((x**2).sum(1) / lengths)
    x /= np.maximum(sd, 1e-12)[:, None]
    coarse, exists = _density(x, valid, tr, EDGES)
    fine, known = _density(x, valid, tr, np.linspace(EDGES[0], TOP, FINE + 1))
    overall = fine.sum(1) / np.maximum(known.sum(1), 1)  # white noise would also have power above 0.25 Hz, the more the faster
    powers = np.where(exists, np.log10(coarse / np.maximum(overall, 1e-12)[:, None] + FLOOR), 0.0)
    fourth = (x**4).sum(1) / lengths
    kurtosis = np.where(sd > 0, fourth - 3, 0.0)
    return np.column_stack([powers, _falff(x, tr), _entropy(fine, known), _autocorrelation(x, tr), kurtosis])


def _density(
    x: np.ndarray, valid: np.ndarray, tr: np.ndarray, edges: Sequence[float] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    power, exists = band_power(
        torch.from_numpy(x.astype(np.float32)), torch.from_numpy(valid), torch.from_numpy(tr.astype(np.float32)),
        torch.tensor(np.asarray(edges), dtype=torch.float32),
    )  # fmt: skip
    return power.numpy().astype(np.float64), exists.numpy()


def _entropy(density: np.ndarray, exists: np.ndarray) -> np.ndarray:
    share = density / np.maximum(density.sum(1, keepdims=True), 1e-12)
    return stats.entropy(np.maximum(share, 1e-12), axis=1) / np.log(np.maximum(exists.sum(1), 2))


def _falff(x: np.ndarray, tr: np.ndarray) -> np.ndarray:
    size = max(FFT, 1 << (x.shape[1] - 1).bit_length())
    amplitude = np.abs(np.fft.rfft(x, n=size))
    hertz = np.arange(amplitude.shape[1]) / (size * tr[:, None])
    total = (amplitude * ((hertz > 0) & (hertz <= TOP))).sum(1)
    return (amplitude * ((hertz >= LOW) & (hertz <= HIGH))).sum(1) / np.maximum(total, 1e-12)


def _autocorrelation(x: np.ndarray, tr: np.ndarray) -> np.ndarray:
    """At a lag of 2 s, between whole volumes by linear interpolation."""
    steps = LAG / tr
    below = np.floor(steps + 1e-6).astype(int)
    weight = np.clip(steps - below, 0.0, 1.0)
    energy = np.maximum((x**2).sum(1), 1e-12)
    out = np.zeros(len(x))
    for lag in np.unique(np.concatenate([below, below + 1])):
        product = (x[:, lag:] * x[:, : x.shape[1] - lag]).sum(1) / energy if lag < x.shape[1] else np.zeros(len(x))
        out += product * (np.where(below == lag, 1 - weight, 0.0) + np.where(below + 1 == lag, weight, 0.0))
    return out
