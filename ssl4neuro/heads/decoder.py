"""U-Net decoder (Ronneberger et al., MICCAI 2015): from maps at strides 2 to 32 to class logits at full resolution."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ssl4neuro.encoders.norms import Norm, norm_layer


class Decoder(nn.Module):
    """Five times: nearest ×2, join the map of that resolution, two convolutions; then a 3×3 convolution to logits.

    Args:
        skips: channels of the five maps, finest first.
        widths: channels after each of the five stages, coarsest first.
        classes: of the logits.
        norm: after every convolution but the last.
        full: channels of a map at full resolution that joins the last stage; 0: none.
    """

    def __init__(self, skips: Sequence[int], widths: Sequence[int], classes: int, norm: Norm = "group", full: int = 0):
        super().__init__()
        if len(widths) != len(skips):
            raise ValueError(f"decoder needs {len(skips)} widths, one per stage, got {len(widths)}")
        joined = [*reversed(skips[:-1]), full]
        inputs = [skips[-1], *widths[:-1]]
        self.stages = nn.ModuleList(
            convolutions(below + beside, width, norm) for below, beside, width in zip(inputs, joined, widths, strict=True)
        )
        self.head = nn.Conv2d(widths[-1], classes, 3, padding=1)

    def forward(
        self,
        maps: Sequence[Float[Tensor, "batch _ _ _"]],
        full: Float[Tensor, "batch _ height width"] | None = None,
    ) -> Float[Tensor, "batch classes height width"]:
        """Logits from maps finest first."""
        *finer, x = maps
        for stage, beside in zip(self.stages, [*reversed(finer), full], strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = stage(x if beside is None else torch.cat([x, beside], 1))
        return self.head(x)


def convolutions(inputs: int, width: int, norm: Norm) -> nn.Sequential:
    """Two 3×3 convolutions, each with norm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), norm_layer(norm)(width), nn.ReLU()]
    return nn.Sequential(*layers)
