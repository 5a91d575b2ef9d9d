"""What a frame looks like given its latent: a small decoder with a learned variance (methods/biovidnet.md §3, F3, F4)."""

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl4neuro.heads.biovidnet.frames import valid_average

SIDE = 32  # pixels of the target: the frame, averaged
LOG_VARIANCE = (-6.0, 3.0)
BETA = 0.5  # of the β-NLL (Seitzer et al., ICLR 2022), without which the variance grows where the mean is hard to learn


class FrameDecoder(nn.Module):
    """z_t to the mean of a 32 × 32 grey frame and one log variance."""

    def __init__(self, dim: int, width: int = 64) -> None:
        super().__init__()
        self.enter = nn.Linear(dim, 16 * width)
        blocks: list[nn.Module] = []
        for wide, narrow in ((width, width), (width, width // 2), (width // 2, width // 4)):
            blocks += [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(wide, narrow, 3, padding=1), nn.GELU()]
        self.grow = nn.Sequential(*blocks, nn.Conv2d(width // 4, 1, 1))
        self.log_variance = nn.Linear(dim, 1)

    def forward(
        self, z: Float[Tensor, "batch time dim"]
    ) -> tuple[Float[Tensor, "batch time 32 32"], Float[Tensor, "batch time"]]:
        """Mean and log variance of every frame."""
        seed = self.enter(z.flatten(0, 1)).unflatten(1, (-1, 4, 4))
        mean = self.grow(seed).squeeze(1).unflatten(0, z.shape[:2])
        return mean, self.log_variance(z).squeeze(2).float().clamp(*LOG_VARIANCE)


def small_frames(x: Float[Tensor, "batch time channels height width"]) -> Float[Tensor, "batch time 32 32"]:
    """The target: frames averaged over channels and to 32 × 32."""
    return F.adaptive_avg_pool2d(x.mean(2), SIDE)


def observation_loss(
    mean: Float[Tensor, "batch time rows columns"],
    log_variance: Float[Tensor, "batch time"],
    target: Float[Tensor, "batch time rows columns"],
    valid: Bool[Tensor, "batch time"],
    beta: float = BETA,
) -> Float[Tensor, ""]:
    """β-NLL per pixel, without the constant, mean over valid frames."""
    error = (mean.float() - target.float()).square().mean((2, 3))
    nll = 0.5 * (log_variance + error / log_variance.exp())
    return valid_average(nll * (beta * log_variance).exp().detach(), valid)
