"""What happens to every scan alike, whatever it was read from: sign, scale, trend and band (network_state.md §2).

The scale of ICA maps and the sign of components are arbitrary, and raw intensities differ between scanners; after this step
maps are in-mask z values and courses detrended z values, so that only the pattern is left to learn from.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.data.scan import ScanRows
from ssl4neuro.errors import UserError

CLIP = 10.0  # z; single voxels beyond it are vessels or artefacts
MIN_VOLUMES = 10  # fewer do not make a time course once a trend is removed


def finalise(rows: ScanRows, name: str, band: tuple[float, float] | None = None) -> tuple[ScanRows, list[str]]:
    """Standardised rows of one scan, and a line for every component left out because it carries no signal.

    Args:
        rows: as read.
        name: file or scan, for messages.
        band: pass band in Hz, if the reader has not filtered already.

    Raises:
        UserError: too few volumes, NaN or infinite values, nothing but constant components, or a band that does not fit.
    """
    courses = check_courses(rows.courses, name)
    courses = clean(courses, rows.tr, name, band=band)
    keep = _varies(courses, rows.courses)
    maps = rows.maps
    if maps is not None:
        if not np.isfinite(maps).all():
            raise UserError(f"{name}: NaN or infinite values in the maps; repair the file or give a smaller --mask")
        maps = zscore_maps(maps)
        if rows.lesion is not None:
            maps[:, rows.lesion] = 0  # exactly: what rounding leaves of the mean differs between scans
        keep &= maps.any(axis=1)
        maps, courses = fix_signs(maps, courses, rows.sign)
    if not keep.any():
        raise UserError(f"{name}: every component is constant, there is no signal; check the file and the mask")
    dropped = [f"component {number} is constant, left out" for number in rows.component[~keep]]
    courses = zscore_courses(courses[keep])
    kept = replace(
        rows,
        courses=courses,
        component=rows.component[keep],
        network=[network for network, k in zip(rows.network, keep, strict=True) if k],
        maps=None if maps is None else maps[keep],
        sign=None,  # applied
    )
    return kept, dropped


def check_courses(courses: Float[np.ndarray, "components time"], name: str) -> Float[np.ndarray, "components time"]:
    """Courses as float64, if they can be used.

    Raises:
        UserError: fewer than 10 volumes, NaN or infinite values.
    """
    if courses.shape[1] < MIN_VOLUMES:
        volumes = f"{courses.shape[1]} volume{'s' if courses.shape[1] != 1 else ''}"
        raise UserError(f"{name}: has {volumes}, a time course needs at least {MIN_VOLUMES}; give the whole series")
    if not np.isfinite(courses).all():
        bad = int((~np.isfinite(courses).all(axis=1)).sum())
        raise UserError(f"{name}: NaN or infinite values in {bad} of {len(courses)} courses; repair or leave out these regions")
    return courses.astype(np.float64)


def clean(
    courses: Float[np.ndarray, "components time"],
    tr: float,
    name: str,
    *,
    band: tuple[float, float] | None = None,
    confounds: Float[np.ndarray, "time confounds"] | None = None,
    kept: np.ndarray | None = None,
) -> Float[np.ndarray, "components kept"]:
    """Linearly detrended courses, freed of confounds, band-passed (Butterworth, as in `nilearn.signal.clean`), scrubbed.

    Args:
        tr: s; only needed for `band`.
        band: lowest and highest frequency in Hz.
        confounds: regressed out, after the same detrending and filter.
        kept: indices of the volumes that scrubbing leaves.

    Raises:
        UserError: the repetition time is unknown or too long for the band.
    """
    if band is None and confounds is None and kept is None:
        return detrend(courses)
    from nilearn import signal

    if band is not None:
        check_band(band, tr, name)
    cleaned = signal.clean(
        courses.T,
        detrend=True,
        standardize=None,
        standardize_confounds=True,
        confounds=confounds,
        sample_mask=kept,
        filter="butterworth" if band else False,
        high_pass=band[0] if band else None,
        low_pass=band[1] if band else None,
        t_r=tr if band else None,
    ).T
    # Filtering and scrubbing leave a small trend behind; the contract says detrended, and so it is.
    return detrend(np.asarray(cleaned, dtype=np.float64))


def check_band(band: tuple[float, float], tr: float, name: str) -> None:
    """Raise UserError unless 0 < low < high < the Nyquist frequency of `tr` (s)."""
    low, high = band
    if not 0 < low < high:
        raise UserError(f"--band {low} {high}: give the lowest and the highest frequency in Hz, e.g. --band 0.01 0.1")
    if not np.isfinite(tr):
        raise UserError(f"{name}: its repetition time is unknown, which --band needs; add RepetitionTime (s) to its JSON")
    if high >= 0.5 / tr:
        raise UserError(f"{name}: TR {tr:g} s carries frequencies up to {0.5 / tr:.3g} Hz only; lower --band {low} {high}")


def detrend(courses: Float[np.ndarray, "components time"]) -> Float[np.ndarray, "components time"]:
    """Courses without mean and linear trend."""
    ramp = np.linspace(-1.0, 1.0, courses.shape[1])
    centred = courses - courses.mean(axis=1, keepdims=True)
    return centred - np.outer(centred @ ramp / (ramp @ ramp), ramp)


def zscore_courses(courses: Float[np.ndarray, "components time"]) -> Float[np.ndarray, "components time"]:
    """Zero mean and unit variance over time; float32. A constant course becomes 0."""
    return _zscore(courses)


def zscore_maps(maps: Float[np.ndarray, "components voxels"]) -> Float[np.ndarray, "components voxels"]:
    """Zero mean and unit variance over the mask, clipped to ±10; float32. A constant map becomes 0."""
    return np.clip(_zscore(maps), -CLIP, CLIP)


def fix_signs(
    maps: Float[np.ndarray, "components voxels"],
    courses: Float[np.ndarray, "components time"],
    known: Int[np.ndarray, "components"] | None = None,
) -> tuple[Float[np.ndarray, "components voxels"], Float[np.ndarray, "components time"]]:
    """Flip map and course together: by `known` (±1) where the source tells, else so that the map's skewness is positive.

    Skewness alone is a poor judge of maps with few voxels or little contrast: on 20 subjects at 10 mm, the two halves of a
    scan disagreed about 37 % of dual-regressed components, and flipped courses destroy the FNC. A template decides better.
    """
    centred = maps - maps.mean(axis=1, keepdims=True, dtype=np.float64)
    sign = np.where((centred**3).sum(axis=1) < 0, -1, 1)
    if known is not None:
        sign = np.where(known == 0, sign, np.sign(known))
    sign = sign[:, None]
    return maps * sign.astype(maps.dtype), courses * sign.astype(courses.dtype)


def _zscore(values: Float[np.ndarray, "rows columns"]) -> Float[np.ndarray, "rows columns"]:
    centred = values - values.mean(axis=1, keepdims=True, dtype=np.float64)
    sd = np.sqrt((centred**2).mean(axis=1, keepdims=True))
    constant = sd <= 1e-6 * np.abs(values).max(axis=1, keepdims=True, initial=0)  # what rounding leaves of a constant
    return np.where(constant, 0, centred / np.where(constant, 1, sd)).astype(np.float32)


def _varies(cleaned: Float[np.ndarray, "components kept"], raw: Float[np.ndarray, "components time"]) -> np.ndarray:
    """Which courses are more than rounding noise around a constant or a straight line."""
    return np.abs(cleaned).max(axis=1) > 1e-6 * np.abs(raw).max(axis=1)
