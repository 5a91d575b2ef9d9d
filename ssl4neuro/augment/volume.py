"""Augmentation of 3-D maps: one batched affine resampling, smoothing, threshold, noise, cut-out (methods/network_state.md §4).

`draw` makes the parameters from keyed random numbers, `apply` uses them and nothing else, so that any augmentation can be
replayed or inspected. No left-right flip by default: the lateralisation of language and frontal networks is signal.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl4neuro.augment.keyed import Keyed, expand

Params = dict[str, Tensor]
_REFERENCE_SIDE = 55  # longest side of the 4 mm MNI grid, for which the method gives the cut-out in voxels


class VolumeAugment:
    """Random views of z-scored maps that are zero outside the mask.

    Every option at zero leaves that step out; with all at zero the output is the input, bit for bit.

    Args:
        rotation_deg: angle uniform in ± this, about an axis uniform on the sphere through the grid's centre. Taken in voxel
            units, so a true rotation where voxels are isotropic (as the grids of `prepare` are).
        scale: isotropic magnification uniform in 1 ± this.
        shift_voxels: translation uniform in ± this along each axis, voxels.
        noise_sd: standard deviation of white noise inside the mask, in the units of the map (z).
        smoothing_voxels: standard deviation of a Gaussian-like kernel uniform in [0, this], voxels; at most 0.7.
        threshold: values with magnitude below a level uniform in [0, this] become 0, as in thresholded component maps.
        cutout: side in voxels of a cube set to 0 (the mean), on a grid whose longest side is 55; in proportion on others.
        flip_lr: mirror the left-right axis with probability 1/2.
        lr_axis: array axis (0, 1 or 2) that runs left-right; 0 in grids with an RAS or LAS affine.
    """

    PRESETS: dict[str, dict[str, Any]] = {
        "tiny": {"smoothing_voxels": 0.0},
        "small": {},
        "base": {},
        "author": {
            "rotation_deg": 15.0,
            "scale": 0.0,
            "shift_voxels": 0.0,
            "noise_sd": 0.01,
            "smoothing_voxels": 0.0,
            "threshold": 0.0,
            "cutout": 0,
        },
        "none": {
            "rotation_deg": 0.0,
            "scale": 0.0,
            "shift_voxels": 0.0,
            "noise_sd": 0.0,
            "smoothing_voxels": 0.0,
            "threshold": 0.0,
            "cutout": 0,
        },
    }

    def __init__(
        self,
        rotation_deg: float = 10.0,
        scale: float = 0.05,
        shift_voxels: float = 1.0,
        noise_sd: float = 0.1,
        smoothing_voxels: float = 0.6,
        threshold: float = 0.5,
        cutout: int = 8,
        flip_lr: bool = False,
        lr_axis: int = 0,
    ):
        if not 0 <= rotation_deg <= 180:
            raise ValueError(f"rotation_deg must lie in 0..180, got {rotation_deg}")
        if not 0 <= scale < 1:
            raise ValueError(f"scale must lie in [0, 1), got {scale}")
        if not 0 <= smoothing_voxels <= 0.7:
            raise ValueError(f"smoothing_voxels must lie in 0..0.7 (a three-point kernel), got {smoothing_voxels}")
        if min(shift_voxels, noise_sd, threshold, cutout) < 0:
            raise ValueError("shift_voxels, noise_sd, threshold and cutout must not be negative")
        if lr_axis not in (0, 1, 2):
            raise ValueError(f"lr_axis must be 0, 1 or 2, got {lr_axis}")
        self.rotation_deg, self.scale, self.shift_voxels = rotation_deg, scale, shift_voxels
        self.noise_sd, self.smoothing_voxels, self.threshold = noise_sd, smoothing_voxels, threshold
        self.cutout, self.flip_lr, self.lr_axis = cutout, flip_lr, lr_axis

    def __call__(
        self,
        x: Float[Tensor, "n 1 d h w"],
        valid: Bool[Tensor, "n d h w"] | None,
        keyed: Keyed,
        group: Int[Tensor, "n"] | None = None,
        rate: Float[Tensor, "n"] | None = None,
    ) -> tuple[Float[Tensor, "n 1 d h w"], Bool[Tensor, "n d h w"] | None]:
        """Draw and apply. `group` and `rate` are for other modalities: maps of one scan are augmented independently."""
        return self.apply(x, valid, self.draw(keyed, tuple(x.shape[-3:])))

    def draw(self, keyed: Keyed, shape: tuple[int, ...]) -> Params:
        """Parameters for maps on a grid of `shape`; a step that is off has no entry.

        matrix [n, 3, 3] and offset [n, 3]: voxel (centred) of the output to voxel of the input; blur [n]: weight of each
        neighbour; threshold [n]; noise [n, d, h, w] in the map's units; cutout [n, 3] and side: first voxel, length; flip [n].
        """
        params: Params = {}
        if self.rotation_deg or self.scale or self.shift_voxels:
            params["matrix"], params["offset"] = self._draw_affine(keyed)
        if self.smoothing_voxels:
            params["blur"] = keyed.uniform("volume.blur", (), 0.0, self.smoothing_voxels).square() / 2  # variance of the kernel
        if self.threshold:
            params["threshold"] = keyed.uniform("volume.threshold", (), 0.0, self.threshold)
        if self.noise_sd:
            params["noise"] = keyed.normal("volume.noise", shape).mul_(self.noise_sd)
        if self.cutout:
            side = max(1, round(self.cutout * max(shape) / _REFERENCE_SIDE))
            room = torch.tensor([max(1, s - side + 1) for s in shape], device=keyed.device)
            params["cutout"] = keyed.integers("volume.cutout", (3,), 0, room)
            params["side"] = torch.tensor(side, device=keyed.device)
        if self.flip_lr:
            params["flip"] = keyed.bernoulli("volume.flip")
        return params

    def _draw_affine(self, keyed: Keyed) -> tuple[Tensor, Tensor]:
        angle = keyed.uniform("volume.angle", (), -self.rotation_deg, self.rotation_deg) * (torch.pi / 180)
        rotation = rotation_matrix(keyed.normal("volume.axis", (3,)), angle)
        factor = keyed.uniform("volume.scale", (), 1 - self.scale, 1 + self.scale)
        shift = keyed.uniform("volume.shift", (3,), -self.shift_voxels, self.shift_voxels)
        # output = factor * R (input - centre) + centre + shift, so the sampling map is its inverse (R transposed)
        matrix = rotation.transpose(1, 2) / expand(factor, 3)
        return matrix, -(matrix * shift[:, None, :]).sum(-1)

    def apply(
        self, x: Float[Tensor, "n 1 d h w"], valid: Bool[Tensor, "n d h w"] | None, params: Params
    ) -> tuple[Float[Tensor, "n 1 d h w"], Bool[Tensor, "n d h w"] | None]:
        """The maps under `params`. The mask belongs to the grid, not to the head: it stays, and what moves out of it is cut."""
        if "flip" in params:
            mirrored = x.flip(2 + self.lr_axis)
            x = torch.where(expand(params["flip"], x.ndim), mirrored, x)
        if "matrix" in params:
            x = resample(x, params["matrix"], params["offset"])
        if "blur" in params:
            x = _blur(x, params["blur"])
        if "threshold" in params:
            x = x * (x.abs() >= expand(params["threshold"], x.ndim))
        if "noise" in params:
            x = x + params["noise"][:, None]
        if "cutout" in params:
            x = x * ~_cube(params["cutout"], params["side"], tuple(x.shape[-3:]))[:, None]
        if valid is not None and params:
            x = x * valid[:, None]
        return x, valid


def rotation_matrix(axis: Float[Tensor, "n 3"], angle: Float[Tensor, "n"]) -> Float[Tensor, "n 3 3"]:
    """Right-handed rotation by `angle` (radians, within ± pi) about `axis` (any length but zero), through a unit quaternion.

    Sine and cosine of the half angle are polynomials and the quaternion is normalised: only correctly rounded operations,
    so that a sample's matrix has the same bits in every batch.
    """
    half = angle / 2
    square = half * half
    sine, cosine = torch.zeros_like(half), torch.zeros_like(half)
    for k in range(6, -1, -1):  # Taylor to order 13; the remainder at pi/2 is below 1e-8
        sine = 1 - square * sine / ((2 * k + 2) * (2 * k + 3))
        cosine = 1 - square * cosine / ((2 * k + 1) * (2 * k + 2))
    length = (axis[:, 0] * axis[:, 0] + axis[:, 1] * axis[:, 1] + axis[:, 2] * axis[:, 2]).sqrt().clamp_min(1e-12)
    a = cosine
    b, c, d = (half * sine * axis[:, i] / length for i in range(3))
    norm = a * a + b * b + c * c + d * d
    rows = (
        (a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)),
        (2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)),
        (2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=1) / expand(norm, 3)


def resample(
    x: Float[Tensor, "n c d h w"], matrix: Float[Tensor, "n 3 3"], offset: Float[Tensor, "n 3"]
) -> Float[Tensor, "n c d h w"]:
    """Trilinear resampling: output voxel p (from the grid's centre) takes the input at `matrix @ p + offset`, 0 outside."""
    half = x.new_tensor([max(s - 1, 1) / 2 for s in x.shape[-3:]])  # voxels per unit of grid_sample's -1..1 coordinates
    normalised = matrix * half / half[:, None]
    theta = torch.cat([normalised, (offset / half)[:, :, None]], dim=2)
    theta = torch.cat([theta[:, :, :3].flip(1, 2), theta[:, :, 3:].flip(1)], dim=2)  # torch orders coordinates w, h, d
    grid = F.affine_grid(theta.to(x.dtype), list(x.shape), align_corners=True)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def _blur(x: Float[Tensor, "n 1 d h w"], weight: Float[Tensor, "n"]) -> Float[Tensor, "n 1 d h w"]:
    """Three-point kernel [w, 1 - 2w, w] along each axis (variance 2w voxels²); beyond the border is 0."""
    w = expand(weight, x.ndim)
    for axis in (2, 3, 4):
        out = x * (1 - 2 * w)
        size = x.shape[axis]
        out.narrow(axis, 1, size - 1).add_(x.narrow(axis, 0, size - 1) * w)
        out.narrow(axis, 0, size - 1).add_(x.narrow(axis, 1, size - 1) * w)
        x = out
    return x


def _cube(first: Int[Tensor, "n 3"], side: Int[Tensor, ""], shape: tuple[int, ...]) -> Bool[Tensor, "n d h w"]:
    inside = []
    for axis, size in enumerate(shape):
        index = torch.arange(size, device=first.device)
        inside.append((index >= first[:, axis, None]) & (index < first[:, axis, None] + side))
    return inside[0][:, :, None, None] & inside[1][:, None, :, None] & inside[2][:, None, None, :]
