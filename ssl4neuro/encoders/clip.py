"""3-D residual networks for clips (Tran et al., CVPR 2018: R3D, MC3, R(2+1)D), blind to padded frames."""

import itertools
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torchvision.models.video.resnet import BasicBlock, Conv2Plus1D, Conv3DNoTemporal, Conv3DSimple

from ssl4neuro.encoders.masked import Conv3d, MaskedGroupNorm, as_weight, halve, zero_invalid
from ssl4neuro.encoders.norms import GROUPS, STATISTICS, Norm
from ssl4neuro.encoders.pooling import AttentionPool, masked_mean
from ssl4neuro.encoders.weights import fit_channels, load_into, public_weights
from ssl4neuro.types import Encoding

SMALLEST_SIDE = 32  # pixels
SIMPLE, FLAT, SPLIT = Conv3DSimple, Conv3DNoTemporal, Conv2Plus1D
KERNELS = {"r3d_18": (SIMPLE,) * 4, "mc3_18": (SIMPLE, FLAT, FLAT, FLAT), "r2plus1d_18": (SPLIT,) * 4}

Masks = dict[int, Float[Tensor, "batch 1 time 1 1"]]  # by number of frames; empty where everything is valid


class ClipEncoder(nn.Module):
    """Encode clips [N, channels, T, H, W] in space and time at once; `dim` features from the last space-time positions.

    Under group norm (the default) statistics and pooling are over valid frames and features at invalid ones are 0 after every
    layer: whatever padding follows a clip changes nothing, and no sample influences another. Under batch norm the latter half
    still holds in evaluation; in training padded frames (as zeros) and the other clips enter the batch's statistics.

    Args:
        dim: length of the output.
        body: which convolutions: r3d_18 in space and time, mc3_18 in time in the stem and the first stage only (and so keeps
            all frames), r2plus1d_18 in space, then in time.
        channels: of the four stages; the stem has those of the first.
        blocks: residual blocks per stage; torchvision's networks have 2.
        in_channels: of the clips.
        norm: see above.
        pool: mean or multi-head attention over the final positions whose frames are valid.
        heads: of the attention; must divide the last of `channels`.
        channels_last: memory format of the features (channels_last_3d).
        weights: public weights of the body (see `encoders/weights.py`), e.g. `R3D_18_Weights.KINETICS400_V1`; a one-channel
            stem gets the sum of the colour kernels. They were made with batch norm: `norm="batch"` uses them as they are, group
            norm keeps kernels and gains and drops the statistics.
    """

    PRESETS: dict[str, dict[str, Any]] = {
        "tiny": {"dim": 64, "channels": (16, 24, 32, 48), "blocks": 1},
        "small": {"dim": 128, "body": "r2plus1d_18", "channels": (24, 48, 96, 160), "blocks": 1, "pool": "attention"},
        "base": {"dim": 256},
    }

    def __init__(
        self,
        dim: int = 256,
        body: Literal["r3d_18", "mc3_18", "r2plus1d_18"] = "r3d_18",
        channels: tuple[int, int, int, int] = (64, 128, 256, 512),
        blocks: int = 2,
        in_channels: int = 1,
        norm: Norm = "group",
        pool: Literal["mean", "attention"] = "mean",
        heads: int = 4,
        channels_last: bool = False,
        weights: str | None = None,
    ):
        super().__init__()
        self.dim = dim
        self.body = _Body(body, channels, blocks, in_channels, norm)
        self.pool = AttentionPool(channels[-1], heads) if pool == "attention" else None
        self.head = nn.Linear(channels[-1], dim)
        if weights is not None:
            _load_body(self.body, weights, in_channels, norm)
        self.memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
        self.body.to(memory_format=self.memory_format)

    def forward(
        self,
        x: Float[Tensor, "batch channels time height width"],
        valid: Bool[Tensor, "batch time"] | None = None,
        rate: Float[Tensor, "batch"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
        times: Tensor | None = None,
    ) -> Encoding:
        """`levels` are the maps of the four stages [N, channels, T, H, W], `tokens` the positions of the last.

        Raises:
            ValueError: frames with a side below 32 pixels.
        """
        if min(x.shape[3:]) < SMALLEST_SIDE:
            raise ValueError(f"frames of {tuple(x.shape[3:])} pixels; every side must be at least {SMALLEST_SIDE}: pad them")
        masks: Masks = {}
        if valid is not None and not bool(valid.all()):
            masks = time_masks(valid, x)
            x = zero_invalid(x, masks[x.shape[2]].expand(-1, -1, -1, *x.shape[3:]))
        levels = self.body(x.contiguous(memory_format=self.memory_format), masks)
        last = levels[-1]
        mask = masks[last.shape[2]].expand(-1, -1, -1, *last.shape[3:]).to(last.dtype) if masks else None
        if self.pool is None:
            pooled = masked_mean(last, mask)
        else:
            pooled = self.pool(last.flatten(2), None if mask is None else mask.flatten(2))
        return Encoding(pooled=self.head(pooled), tokens=last.flatten(2).transpose(1, 2), levels=tuple(levels))


def time_masks(valid: Bool[Tensor, "batch time"], like: Tensor) -> Masks:
    """Valid frames at every resolution in time, each half of the one before, by number of frames."""
    mask = as_weight(valid[:, :, None, None], like)
    masks: Masks = {}
    while mask is not None:
        masks[mask.shape[2]] = mask
        mask = None if mask.shape[2] == 1 else halve(mask.squeeze((3, 4)))[..., None, None]  # type: ignore[index]
    return masks


class _Body(nn.Module):
    """torchvision's video networks without the classifier, under torchvision's names of parameters."""

    def __init__(self, body: str, channels: tuple[int, ...], blocks: int, in_channels: int, norm: Norm):
        super().__init__()
        self.stem = _stem(in_channels, channels[0], split=body == "r2plus1d_18")
        widths = (channels[0], *channels)
        for i, ((a, b), kernel) in enumerate(zip(itertools.pairwise(widths), KERNELS[body], strict=True)):
            rest = [BasicBlock(b, b, kernel) for _ in range(blocks - 1)]
            self.add_module(f"layer{i + 1}", nn.Sequential(_first_block(a, b, kernel, 2 if i else 1), *rest))
        _swap(self, norm)
        for part in self.modules():
            if isinstance(part, nn.Conv3d):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, masks: Masks) -> list[Tensor]:
        x = _run(self.stem, x, masks)
        levels = []
        for i in range(1, 5):
            x = _run(self.get_submodule(f"layer{i}"), x, masks)
            levels.append(x)
        return levels


def _stem(in_channels: int, out: int, split: bool) -> nn.Sequential:
    """Strides 2 in space only. The split one has torchvision's 45 of 64 channels between its halves."""
    if not split:
        conv = nn.Conv3d(in_channels, out, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False)
        return nn.Sequential(conv, nn.BatchNorm3d(out), nn.ReLU(inplace=True))
    middle = round(out * 45 / 64)
    space = nn.Conv3d(in_channels, middle, (1, 7, 7), stride=(1, 2, 2), padding=(0, 3, 3), bias=False)
    time = nn.Conv3d(middle, out, (3, 1, 1), padding=(1, 0, 0), bias=False)
    return nn.Sequential(space, nn.BatchNorm3d(middle), nn.ReLU(inplace=True), time, nn.BatchNorm3d(out), nn.ReLU(inplace=True))


def _first_block(width: int, out: int, kernel: Any, stride: int) -> BasicBlock:
    """The block that changes the grid or the number of channels."""
    if stride == 1 and width == out:
        return BasicBlock(width, out, kernel)
    step = kernel.get_downsample_stride(stride)
    shortcut = nn.Sequential(nn.Conv3d(width, out, 1, stride=step, bias=False), nn.BatchNorm3d(out))
    return BasicBlock(width, out, kernel, stride, shortcut)


def _swap(module: nn.Module, norm: Norm) -> None:
    """Our convolutions (safe under CPU autocast) and, under group norm, masked norms in the places of torchvision's."""
    for name, child in module.named_children():
        if isinstance(child, nn.Conv3d):
            shape: dict[str, Any] = {"stride": child.stride, "padding": child.padding, "bias": False}
            setattr(module, name, Conv3d(child.in_channels, child.out_channels, child.kernel_size, **shape))  # type: ignore[arg-type]
        elif isinstance(child, nn.BatchNorm3d) and norm == "group":
            setattr(module, name, MaskedGroupNorm(GROUPS, child.num_features))
        else:
            _swap(child, norm)


def _run(module: nn.Module, x: Tensor, masks: Masks) -> Tensor:
    """torchvision's forward with the mask handed to every norm; what it zeroes stays zero: ReLU(0) = 0, and so do sums."""
    if isinstance(module, BasicBlock):
        shortcut = x if module.downsample is None else _run(module.downsample, x, masks)
        return F.relu(_run(module.conv2, _run(module.conv1, x, masks), masks) + shortcut)
    if isinstance(module, nn.Sequential):
        for part in module:
            x = _run(part, x, masks)
        return x
    if not masks or not isinstance(module, MaskedGroupNorm | nn.BatchNorm3d):
        return module(x)
    mask = masks[x.shape[2]].expand(-1, -1, -1, *x.shape[3:])
    return module(x, mask) if isinstance(module, MaskedGroupNorm) else module(x) * mask.to(x.dtype)


def _load_body(body: _Body, weights: str, in_channels: int, norm: Norm) -> None:
    """Public weights into the body; the classifier is left aside, batch statistics too under group norm."""
    state = public_weights(weights)
    if state is None:
        return
    if "stem.0.weight" in state:
        state["stem.0.weight"] = fit_channels(state["stem.0.weight"], in_channels)
    load_into(body, state, weights, ignore=("fc.", *(STATISTICS if norm == "group" else ())))
