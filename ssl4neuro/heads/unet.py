"""U-Nets without pretrained encoders, MONAI's: what any network for this task has to beat."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from monai.networks.nets import UNet
from torch import Tensor, nn

from ssl4neuro.heads.flops import forward_gflop
from ssl4neuro.heads.padding import pad_to_multiple
from ssl4neuro.heads.refinement import uncertainty
from ssl4neuro.heads.segmented import Segmented

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"widths": (16, 24, 32, 48, 64)},
    "base": {"widths": (32, 64, 128, 256, 512)},
}


class FrameUNet(nn.Module):
    """2-D U-Net on the first frame alone, which must be valid; the others are not looked at.

    Args:
        encoders: not used.
        classes: the background included.
        frames: not used, but for `cost`.
        channels: of the clips.
        widths: channels at strides 1, 2, 4, ...
    """

    PRESETS = PRESETS

    def __init__(
        self,
        encoders: dict[str, nn.Module],
        classes: int,
        frames: int,
        channels: int = 1,
        widths: tuple[int, ...] = (32, 64, 128, 256, 512),
    ):
        super().__init__()
        self.frames, self.channels, self.stride = frames, channels, 2 ** len(widths)
        self.net = UNet(2, channels, classes, widths, (2,) * (len(widths) - 1), num_res_units=2)

    def forward(
        self,
        x: Float[Tensor, "batch channels time height width"],
        valid: Bool[Tensor, "batch time"] | None = None,
        residual: Float[Tensor, "batch channels time height width"] | None = None,
    ) -> Segmented:
        """The first frame's classes."""
        frame = pad_to_multiple(x[:, :, :1], self.stride)[:, :, 0]
        return _segmented(self.net(frame)[..., : x.shape[3], : x.shape[4]])

    def cost(self, height: int, width: int) -> dict[str, int | float]:
        """Parameters, and GFLOP of a forward pass of one clip of this size."""
        return _cost(self, (1, self.channels, self.frames, height, width))


class ClipUNet(nn.Module):
    """3-D U-Net on the whole clip, which keeps its number of frames at every level. Any number will do.

    The cycle is turned so that the first frame stands in the middle, with as much before it as after it.

    Args:
        encoders: not used.
        classes: the background included.
        frames: not used, but for `cost`.
        channels: of the clips.
        widths: channels at strides 1, 2, 4, ... of rows and columns.
    """

    PRESETS = PRESETS

    def __init__(
        self,
        encoders: dict[str, nn.Module],
        classes: int,
        frames: int,
        channels: int = 1,
        widths: tuple[int, ...] = (32, 64, 128, 256, 512),
    ):
        super().__init__()
        self.frames, self.channels, self.stride = frames, channels, 2 ** len(widths)
        self.net = UNet(3, channels, classes, widths, ((1, 2, 2),) * (len(widths) - 1), num_res_units=2)  # type: ignore[arg-type]

    def forward(
        self,
        x: Float[Tensor, "batch channels time height width"],
        valid: Bool[Tensor, "batch time"] | None = None,
        residual: Float[Tensor, "batch channels time height width"] | None = None,
    ) -> Segmented:
        """The first frame's classes; clips are grouped by their number of valid frames, so that padding is never seen."""
        padded = pad_to_multiple(x, self.stride)
        if valid is None:
            logits = self._middle(padded)
        else:
            lengths = valid.sum(1).clamp_min(1)
            rows = [torch.nonzero(lengths == length)[:, 0] for length in lengths.unique()]
            parts = [self._middle(padded[i, :, : int(lengths[i[0]])]) for i in rows]
            logits = torch.cat(parts)[torch.cat(rows).argsort()]
        return _segmented(logits[..., : x.shape[3], : x.shape[4]])

    def _middle(self, x: Float[Tensor, "n channels time height width"]) -> Float[Tensor, "n classes height width"]:
        middle = x.shape[2] // 2
        return self.net(x.roll(middle, 2))[:, :, middle]

    def cost(self, height: int, width: int) -> dict[str, int | float]:
        """Parameters, and GFLOP of a forward pass of one clip of this size."""
        return _cost(self, (1, self.channels, self.frames, height, width))


def _segmented(logits: Float[Tensor, "batch classes height width"]) -> Segmented:
    logits = logits.float()
    probabilities = logits.softmax(1)
    return Segmented(logits, probabilities, uncertainty(probabilities))


def _cost(head: nn.Module, shape: tuple[int, ...]) -> dict[str, int | float]:
    gflop = forward_gflop(head, shape)[""]
    return {"parameters": sum(p.numel() for p in head.parameters()), "gflop": gflop}
