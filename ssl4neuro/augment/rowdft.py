"""Discrete Fourier transform of zero-padded rows, each at its own length.

The frequencies of a row with L time points are k / L. Transforming the padded row instead would put them at k / T, with T the
longest row of the batch, so that a row's augmentation would depend on its neighbours. Bluestein's identity
kn = (k² + n² - (k - n)²) / 2 (IEEE Trans. Audio Electroacoust. 18:451, 1970) turns the sum into a convolution, which one
batched FFT does for all lengths.
"""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor


def row_rfft(x: Float[Tensor, "n time"], length: Int[Tensor, "n"]) -> Complex[Tensor, "n frequencies"]:
    """X[k] = sum_t x[t] exp(-2 pi i k t / L) for k = 0 .. T // 2, where row r has L = length[r] and is 0 from there on.

    Entries with k > L // 2 are 0. Equal to `torch.fft.rfft(row[:L])` for every row.
    """
    spectrum = _chirp_transform(x.to(torch.complex64), length, x.shape[1] // 2 + 1, sign=-1)
    k = torch.arange(spectrum.shape[1], device=x.device)
    return spectrum * (k <= (length // 2)[:, None])


def row_irfft(spectrum: Complex[Tensor, "n frequencies"], length: Int[Tensor, "n"], time: int) -> Float[Tensor, "n time"]:
    """Inverse of `row_rfft`, zero-padded to `time`; imaginary parts at k = 0 and k = L / 2 have no effect."""
    k = torch.arange(spectrum.shape[1], device=spectrum.device)
    twice = (k > 0) & (2 * k < length[:, None])  # the mirrored negative frequencies
    inside = 2 * k <= length[:, None]
    weight = inside * (1 + twice.to(torch.float32)) / length[:, None].clamp_min(1)
    x = _chirp_transform(spectrum * weight, length, time, sign=1).real
    return x * (torch.arange(time, device=x.device) < length[:, None])


def _chirp_transform(x: Tensor, length: Tensor, outputs: int, sign: int) -> Tensor:
    """sum_t x[t] exp(sign 2 pi i k t / L) for k = 0 .. outputs - 1."""
    inputs = x.shape[1]
    size = 1 << (inputs + outputs - 2).bit_length()  # linear convolution of length inputs + outputs - 1
    index = torch.arange(max(inputs, outputs), device=x.device)
    period = 2 * length[:, None].clamp_min(1)
    phase = (index * index) % period  # exact integers: float32 would lose k² for long rows
    chirp = torch.polar(torch.ones_like(phase, dtype=torch.float32), sign * torch.pi * phase.float() / (period / 2))
    kernel = torch.zeros(len(x), size, dtype=torch.complex64, device=x.device)
    kernel[:, :outputs] = chirp[:, :outputs].conj()
    kernel[:, size - inputs + 1 :] = chirp[:, 1:inputs].flip(1).conj()
    product = torch.fft.fft(x * chirp[:, :inputs], n=size) * torch.fft.fft(kernel)
    return torch.fft.ifft(product)[:, :outputs] * chirp[:, :outputs]
