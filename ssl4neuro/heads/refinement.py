"""Where the first answer is unsure, look again with what each class looks like nearby (methods/mvo.md §4, equations 3-6).

After the uncertain-region refinement of AFB-URR (Liang et al., NeurIPS 2020), written from the equations.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

RATIO = 50.0  # largest ratio of the two best classes that is told apart
FLOOR = 1e-8


def uncertainty(
    probabilities: Float[Tensor, "batch classes height width"], ratio: float = RATIO
) -> Float[Tensor, "batch 1 height width"]:
    """U = exp(1 - p1 / p2) of the two most probable classes (equation 3): 1 where they tie, towards 0 where one is sure.

    In float32. The ratio is capped, beyond which there is no gradient.
    """
    first, second = _best_two(probabilities.float())
    log_ratio = (first.clamp_min(FLOOR).log() - second.clamp_min(FLOOR).log()).clamp_max(math.log(ratio))
    return (1 - log_ratio.exp()).exp()


def _best_two(p: Float[Tensor, "batch classes *space"]) -> tuple[Float[Tensor, "batch 1 *space"], ...]:
    best, place = p.max(1, keepdim=True)
    rest = p.scatter(1, place, -1.0)  # faster than sorting a strided axis
    return best, rest.amax(1, keepdim=True)


class Refined(NamedTuple):
    """Equation 6."""

    logits: Float[Tensor, "batch classes height width"]  # M + U ⊙ E, float32
    uncertainty: Float[Tensor, "batch 1 height width"]  # of softmax(M)
    evidence: Float[Tensor, "batch classes height width"]  # E


class Refinement(nn.Module):
    """Second thoughts from local class means of a feature map.

    Args:
        channels: of the feature map.
        dim: features it is reduced to first, for less memory; None: as they are.
        hidden: channels of the network that compares a pixel with its class.
        pool: side of the neighbourhood, pixels, odd.
        ratio: cap of the uncertainty.
    """

    def __init__(self, channels: int, dim: int | None = None, hidden: int = 32, pool: int = 7, ratio: float = RATIO):
        super().__init__()
        if pool % 2 == 0:
            raise ValueError(f"refine_pool must be odd, so that a neighbourhood has a middle; got {pool}")
        self.pool, self.ratio = pool, ratio
        self.reduce = nn.Identity() if dim is None else nn.Conv2d(channels, dim, 1)
        channels = channels if dim is None else dim
        # The first convolution of a joined (pixel, class mean), in two parts: the pixel's is the same for all classes.
        self.pixel = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.mean = nn.Conv2d(channels, hidden, 3, padding=1)
        self.residual = nn.Sequential(
            nn.ReLU(), nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, hidden, 3, padding=1)
        )
        self.last = nn.Conv2d(hidden, 1, 3, padding=1)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        nn.init.zeros_(self.last.weight)  # the first answer stands until there is a reason
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(
        self,
        logits: Float[Tensor, "batch classes height width"],
        features: Float[Tensor, "batch channels rows columns"],
    ) -> Refined:
        """`features` are brought to the size of the logits M by bilinear interpolation."""
        first = logits.float()
        probabilities = first.softmax(1)
        doubt = uncertainty(probabilities, self.ratio)
        features = self.reduce(features)
        masks = probabilities.to(features.dtype)
        features = F.interpolate(features, size=logits.shape[2:], mode="bilinear", align_corners=False)
        means = class_means(masks, features, self.pool)
        hidden = self.mean(means.flatten(0, 1)).unflatten(0, masks.shape[:2]) + self.pixel(features)[:, None]
        hidden = hidden.flatten(0, 1)
        hidden = hidden + self.residual(hidden)
        seen = self.last(hidden.relu()).view(masks.shape)
        evidence = _largest(masks, self.pool).float() * seen.float()
        return Refined(first + doubt * evidence, doubt, evidence)


def class_means(
    masks: Float[Tensor, "batch classes height width"], features: Float[Tensor, "batch channels height width"], pool: int
) -> Float[Tensor, "batch classes channels height width"]:
    """R_i = AvgPool(M_i F) / AvgPool(M_i) (equation 4): the mean feature of class i around each pixel."""
    weighted = masks[:, :, None] * features[:, None]
    mass = _local_sum(masks, pool)
    floor = max(FLOOR, torch.finfo(mass.dtype).tiny)  # 1e-8 is 0 in half precision
    return _local_sum(weighted, pool) / (mass + floor)[:, :, None]


def _local_sum(x: Float[Tensor, "*maps height width"], pool: int) -> Float[Tensor, "*maps height width"]:
    """Over neighbourhoods cut off at the edge: a product with a band matrix on either side, far faster than pooling here."""
    rows, columns = (_band(side, pool, x) for side in x.shape[-2:])
    return rows @ (x @ columns)


def _band(side: int, pool: int, like: Tensor) -> Float[Tensor, "side side"]:
    index = torch.arange(side, device=like.device)
    return ((index[:, None] - index).abs() <= pool // 2).to(like.dtype)


def _largest(x: Float[Tensor, "n channels height width"], pool: int) -> Float[Tensor, "n channels height width"]:
    x = F.max_pool2d(x, (pool, 1), 1, (pool // 2, 0))
    return F.max_pool2d(x, (1, pool), 1, (0, pool // 2))
