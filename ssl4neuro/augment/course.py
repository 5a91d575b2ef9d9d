"""Augmentation of component time courses (methods/network_state.md §4): crop, band jitter, phase-randomised noise, scale, gap.

What imitates another acquisition of the same scan (the window in time, the gap, the band) is shared by the rows of a group,
because correlations between components are only meaningful over common time points; what concerns one component (scale,
noise) is drawn per row. No time reversal, and scaling keeps the sign.
"""

import math
from typing import Any

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from ssl4neuro.augment.keyed import Keyed
from ssl4neuro.augment.rowdft import row_irfft, row_rfft

Params = dict[str, Tensor]
_UNKNOWN_TR = 2.0  # s; stands in for an unknown repetition time in the band jitter only
_SHORTEST = 32  # volumes; what the course encoders need


class CourseAugment:
    """Random views of z-scored courses.

    Every option at its neutral value leaves that step out; with all neutral the output is the input, bit for bit.

    Args:
        crop_min: length of the window, as a fraction of the row's extent, uniform in [this, 1]; at least 32 volumes; 1 is off.
        halves: instead of a random window, even views take the part before a random cut and odd views the part after it
            (fraction uniform in 0.4..0.6), so that two views of a scan share no time point.
        mask_fraction: length of one contiguous gap (set to 0 and to invalid) as a fraction of the window.
        scale_low, scale_high: factor, uniform.
        phase_noise: amplitude of noise with the row's own amplitude spectrum and random phases, relative to the row.
        highpass_hz: edge of a smooth high-pass uniform in [0, this], Hz; 0 is off.
        lowpass_hz: edge of a smooth low-pass uniform in [this, 0.25], Hz; 0 is off.
    """

    PRESETS: dict[str, dict[str, Any]] = {
        "tiny": {},
        "small": {},
        "base": {},
        "author": {
            "crop_min": 1.0,
            "scale_low": 0.85,
            "scale_high": 1.15,
            "phase_noise": 0.0,
            "highpass_hz": 0.0,
            "lowpass_hz": 0.0,
        },
        "none": {
            "crop_min": 1.0,
            "mask_fraction": 0.0,
            "scale_low": 1.0,
            "scale_high": 1.0,
            "phase_noise": 0.0,
            "highpass_hz": 0.0,
            "lowpass_hz": 0.0,
        },
    }

    def __init__(
        self,
        crop_min: float = 0.6,
        halves: bool = False,
        mask_fraction: float = 0.15,
        scale_low: float = 0.8,
        scale_high: float = 1.2,
        phase_noise: float = 0.2,
        highpass_hz: float = 0.01,
        lowpass_hz: float = 0.1,
    ):
        if not 0 < crop_min <= 1:
            raise ValueError(f"crop_min must lie in (0, 1], got {crop_min}")
        if not 0 <= mask_fraction <= 0.5:
            raise ValueError(f"mask_fraction must lie in 0..0.5, got {mask_fraction}")
        if not 0 < scale_low <= scale_high:
            raise ValueError(f"0 < scale_low <= scale_high expected, got {scale_low}, {scale_high}")
        if phase_noise < 0 or highpass_hz < 0 or not 0 <= lowpass_hz <= 0.25:
            raise ValueError("phase_noise and highpass_hz must not be negative, lowpass_hz must lie in 0..0.25 Hz")
        self.crop_min, self.halves, self.mask_fraction = crop_min, halves, mask_fraction
        self.scale_low, self.scale_high, self.phase_noise = scale_low, scale_high, phase_noise
        self.highpass_hz, self.lowpass_hz = highpass_hz, lowpass_hz

    def __call__(
        self,
        x: Float[Tensor, "n time"],
        valid: Bool[Tensor, "n time"] | None,
        keyed: Keyed,
        group: Int[Tensor, "n"] | None = None,
        rate: Float[Tensor, "n"] | None = None,
    ) -> tuple[Float[Tensor, "n time"], Bool[Tensor, "n time"]]:
        """Draw and apply. The output has the input's width; the window is moved to the front and padded with zeros."""
        return self.apply(x, valid, self.draw(keyed, x, valid, group), rate)

    def draw(
        self,
        keyed: Keyed,
        x: Float[Tensor, "n time"],
        valid: Bool[Tensor, "n time"] | None,
        group: Int[Tensor, "n"] | None = None,
    ) -> Params:
        """Parameters for rows whose extents are given by `valid`; a step that is off has no entry.

        start, length [n]: window, volumes; gap [n] and gap_length [n]: within the window, volumes; scale [n];
        phase [n, time // 2 + 1]: radians; highpass, lowpass [n]: edges in Hz, lowpass inf where off.

        Args:
            group: rows with equal codes share window, gap and band; None treats every row as its own scan.
        """
        extent = _extent(x, valid)
        shared = (keyed.with_rows(group) if group is not None else keyed).child("shared")
        params: Params = {}
        if self.halves:
            params["start"], params["length"] = self._draw_half(shared, extent)
        elif self.crop_min < 1:
            wanted = torch.ceil(shared.uniform("course.crop", (), self.crop_min, 1.0) * extent).long()
            params["length"] = torch.minimum(wanted.clamp_min(_SHORTEST), extent)
            params["start"] = shared.integers("course.start", (), 0, extent - params["length"] + 1)
        length = params.get("length", extent)
        if self.mask_fraction:
            params["gap_length"] = torch.floor(self.mask_fraction * length).long()
            params["gap"] = shared.integers("course.gap", (), 0, length - params["gap_length"] + 1)
        if self.highpass_hz or self.lowpass_hz:
            params["highpass"] = shared.uniform("course.highpass", (), 0.0, self.highpass_hz)
            edge = shared.uniform("course.lowpass", (), self.lowpass_hz, 0.25)
            params["lowpass"] = edge if self.lowpass_hz else torch.full_like(edge, torch.inf)
        if self.phase_noise:
            params["phase"] = keyed.uniform("course.phase", (x.shape[1] // 2 + 1,), 0.0, 2 * math.pi)
        if (self.scale_low, self.scale_high) != (1.0, 1.0):
            params["scale"] = keyed.uniform("course.scale", (), self.scale_low, self.scale_high)
        return params

    def _draw_half(self, shared: Keyed, extent: Int[Tensor, "n"]) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
        cut = torch.round(shared.with_view(0).uniform("course.cut", (), 0.4, 0.6) * extent).long()
        view = torch.as_tensor(shared.view, device=extent.device)
        second = (view % 2 == 1).expand_as(cut)
        return torch.where(second, cut, 0), torch.where(second, extent - cut, cut)

    def apply(
        self,
        x: Float[Tensor, "n time"],
        valid: Bool[Tensor, "n time"] | None,
        params: Params,
        rate: Float[Tensor, "n"] | None = None,
    ) -> tuple[Float[Tensor, "n time"], Bool[Tensor, "n time"]]:
        """The courses under `params`. `rate` is the repetition time in s (NaN or None: 2 s is assumed for the band)."""
        if valid is None:
            valid = torch.ones_like(x, dtype=torch.bool)
        length = _extent(x, valid)
        if "start" in params:
            length = params["length"]
            x, valid = _window(x, valid, params["start"], length)
        if "highpass" in params or "phase" in params:
            x = self._filter_and_noise(x, length, params, rate) * valid
        if "scale" in params:
            x = x * params["scale"][:, None]
        if "gap" in params:
            position = torch.arange(x.shape[1], device=x.device)
            first = params["gap"][:, None]
            valid = valid & ~((position >= first) & (position < first + params["gap_length"][:, None]))
            x = x * valid
        return x, valid

    def _filter_and_noise(self, x: Tensor, length: Tensor, params: Params, rate: Tensor | None) -> Tensor:
        spectrum = row_rfft(x, length)
        if "highpass" in params:
            spectrum = spectrum * _gain(spectrum.shape[1], length, rate, params["highpass"], params["lowpass"])
        if "phase" in params:
            spectrum = spectrum + self.phase_noise * phase_randomised(spectrum, params["phase"], length)
        return row_irfft(spectrum, length, x.shape[1])


def phase_randomised(
    spectrum: Complex[Tensor, "n frequencies"], phase: Float[Tensor, "n frequencies"], length: Int[Tensor, "n"]
) -> Complex[Tensor, "n frequencies"]:
    """The amplitudes of a row spectrum with other phases (radians).

    The constant and the Nyquist term of a real series are real: they keep their magnitude and take the sign of cos(phase).
    Theiler et al., Physica D 58:77 (1992).
    """
    k = torch.arange(spectrum.shape[1], device=spectrum.device)
    real = (k == 0) | (2 * k == length[:, None])
    phase = torch.where(real, (phase.cos() < 0) * torch.pi, phase)
    return torch.polar(spectrum.abs(), phase)


def _gain(count: int, length: Tensor, rate: Tensor | None, highpass: Tensor, lowpass: Tensor) -> Tensor:
    """Amplitude response of second-order high-pass and fourth-order low-pass Butterworth edges at the row's frequencies."""
    tr = torch.full_like(highpass, _UNKNOWN_TR) if rate is None else rate.to(highpass).nan_to_num(nan=_UNKNOWN_TR)
    frequency = torch.arange(count, device=length.device) / (length.clamp_min(1) * tr)[:, None]  # Hz
    high = frequency.square() / (frequency.square() + highpass[:, None].square()).clamp_min(1e-20)
    high = torch.where(highpass[:, None] > 0, high, 1.0)
    return high / (1 + (frequency / lowpass[:, None]) ** 8).sqrt()


def _extent(x: Tensor, valid: Tensor | None) -> Int[Tensor, "n"]:
    """Position after the last valid one; a gap inside counts as part of the row."""
    if valid is None:
        return torch.full((len(x),), x.shape[1], device=x.device)
    position = torch.arange(1, x.shape[1] + 1, device=x.device)
    return (valid * position).amax(1)


def _window(x: Tensor, valid: Tensor, start: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    position = torch.arange(x.shape[1], device=x.device)
    index = (start[:, None] + position).clamp_max(x.shape[1] - 1)
    inside = position < length[:, None]
    valid = valid.gather(1, index) & inside
    return x.gather(1, index) * valid, valid
