"""What every head for segmentation takes and returns."""

from typing import NamedTuple, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from torch import Tensor


class Segmented(NamedTuple):
    """One picture per clip: its first frame, pixel by pixel. Class 0 is the background."""

    logits: Float[Tensor, "batch classes height width"]  # final
    probabilities: Float[Tensor, "batch classes height width"]  # softmax of `logits`, float32
    uncertainty: Float[Tensor, "batch 1 height width"]  # of `probabilities`, above 0 to 1 (`methods/mvo.md` equation 3)
    first: Float[Tensor, "batch classes height width"] | None = None  # logits before refinement, where there is one


@runtime_checkable
class SegmentationHead(Protocol):
    """An `nn.Module` that segments the first frame of clips, which the loader has put there.

    A new one is built as `Head(encoders=..., classes=..., frames=..., channels=..., **options)`, stands in `HEADS`, and has
    a line in `tests/heads/test_head_contract.py`. `encoders` may be empty: a head that needs none ignores them.
    """

    def __call__(
        self,
        x: Float[Tensor, "batch channels time height width"],
        valid: Bool[Tensor, "batch time"] | None = None,
        residual: Float[Tensor, "batch channels time height width"] | None = None,
    ) -> Segmented: ...
