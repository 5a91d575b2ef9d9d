"""Time courses of correlated networks with band-limited spectra, and what an expert reads from them."""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

BAND = (0.01, 0.08)  # Hz
FLOOR = 0.15  # sd of the white measurement noise beside a course of sd 1

# Loadings of the five networks on five latent signals; rows are normalised, so that W @ W.T is the mean FNC.
LOADINGS = np.array(
    [
        [1.0, 0.5, 0.0, 0.2, 0.0],  # motor
        [0.5, 1.0, 0.0, 0.0, 0.2],  # vision
        [0.0, 0.0, 1.0, 0.5, 0.4],  # language
        [0.2, 0.0, 0.5, 1.0, 0.0],  # frontal
        [0.0, 0.3, 0.4, 0.0, 1.0],  # temporal
    ]
)


@dataclass(frozen=True)
class CourseModel:
    """How courses differ. Slopes are exponents a of a power spectrum f^-a; state and spreads are in the same unit."""

    slope: float = 1.0
    state: float = 0.38  # steeper after the operation
    subject: float = 0.20  # sd over subjects, common to the networks of a subject
    network: float = 0.20  # sd over subject x network
    session: float = 0.10  # sd over session x network
    fnc_subject: float = 0.35  # sd of a subject's loadings
    fnc_session: float = 0.08  # sd of a session's loadings
    within: float = 0.6  # correlation of the components of one network


def fnc(loadings: Float[np.ndarray, "networks latents"]) -> Float[np.ndarray, "networks networks"]:
    """Network-by-network correlation that a set of loadings stands for."""
    w = loadings / np.sqrt((loadings**2).sum(axis=1, keepdims=True))
    return np.einsum("ik,jk->ij", w, w)


def draw_courses(
    rng: np.random.Generator,
    correlation: Float[np.ndarray, "networks networks"],
    slopes: Float[np.ndarray, "networks"],
    length: int,
    tr: float,
    components: int = 1,
    within: float = 0.6,
) -> Float[np.ndarray, "networks {components} time"]:
    """Courses of sd about 1 whose power within `BAND` falls as f^-slope and is (nearly) nothing outside.

    They are cut from a longer record, so that they neither start where they end nor have lines at the bins of their spectrum.
    """
    count = len(slopes)
    record = length + 128
    frequency = np.fft.rfftfreq(record, tr)
    band = np.flatnonzero((frequency >= BAND[0]) & (frequency <= BAND[1]))
    white = rng.standard_normal((count, len(band), 2)) @ np.array([1, 1j])
    mixed = np.einsum("ij,jf->if", np.linalg.cholesky(correlation), white)
    own = rng.standard_normal((count, components, len(band), 2)) @ np.array([1, 1j])
    if components == 1:
        parts = mixed[:, None]
    else:
        parts = np.sqrt(within) * mixed[:, None] + np.sqrt(1 - within) * own
    shape = frequency[band] ** (-slopes[:, None] / 2)
    shape /= np.sqrt((shape**2).sum(axis=1, keepdims=True))
    spectrum = np.zeros((count, components, len(frequency)), dtype=complex)
    spectrum[..., band] = parts * shape[:, None] * record / 2
    start = int(rng.integers(0, 128))
    courses = np.fft.irfft(spectrum, n=record, axis=-1)[..., start : start + length]
    return courses + FLOOR * rng.standard_normal(courses.shape)


def spectral_slope(courses: Float[np.ndarray, "courses time"], tr: float) -> Float[np.ndarray, "courses"]:
    """Whittle's maximum-likelihood exponent a of a power spectrum f^-a within `BAND`.

    The likelihood of a periodogram is that of independent exponentials; Fisher scoring solves it for level and slope.
    """
    length = courses.shape[1]
    frequency = np.fft.rfftfreq(length, tr)
    inside = (frequency >= BAND[0]) & (frequency <= BAND[1])
    power = np.abs(np.fft.rfft(courses - courses.mean(axis=1, keepdims=True), axis=1)[:, inside]) ** 2
    x = np.log(frequency[inside])
    x = x - x.mean()
    level, slope = np.log(power.mean(axis=1)), np.full(len(courses), 1.0)
    for _ in range(20):
        residual = power / np.exp(level[:, None] - slope[:, None] * x) - 1
        level = level + np.clip(residual.mean(axis=1), -1, 1)
        slope = slope - np.clip((residual * x).sum(axis=1) / (x**2).sum(), -0.5, 0.5)
    return slope


def slope_error(length: int, tr: float) -> float:
    """Asymptotic standard error of `spectral_slope` for one course of `length` volumes."""
    frequency = np.fft.rfftfreq(length, tr)
    x = np.log(frequency[(frequency >= BAND[0]) & (frequency <= BAND[1])])
    return float(1 / np.sqrt(((x - x.mean()) ** 2).sum()))


def estimate_redundancy(model: CourseModel, networks: int) -> float:
    """How much larger the error of a mean slope is than for independent courses: periodograms correlate as r squared."""
    rng = np.random.default_rng(0)
    loadings = LOADINGS[:networks] + model.fnc_subject * rng.standard_normal((500, networks, LOADINGS.shape[1]))
    squared = np.mean([(fnc(w) ** 2).sum() for w in loadings])
    return float(squared / networks)


def log_spectrum(course: Float[np.ndarray, "time"], tr: float, bands: int = 12) -> Float[np.ndarray, "{bands}"]:
    """Log of the share of power in `bands` equal steps of `BAND`: the simple course features of the baseline."""
    frequency = np.fft.rfftfreq(len(course), tr)
    power = np.abs(np.fft.rfft(course - course.mean())) ** 2
    edges = np.linspace(*BAND, bands + 1)
    sums = np.array([power[(frequency >= lo) & (frequency < hi)].sum() for lo, hi in itertools.pairwise(edges)])
    return np.log(sums / sums.sum() + 1e-6)
