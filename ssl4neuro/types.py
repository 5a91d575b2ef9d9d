"""The few types that every part shares: a batch, an encoding, and what encoders and objectives look like.

Modalities are names, not classes: `map`, `course`, and any that a user adds. jaxtyping shapes use these axes:
`batch` rows of a cohort, `views` augmented copies of a row, `session` distinct groups within the batch, `dim` features.
"""

from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, Protocol, TypedDict, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor

if TYPE_CHECKING:
    from ssl4neuro.model import Model


class Batch(TypedDict):
    """Tensors only (Accelerate moves tensors, not strings), batch axis first."""

    row: Int[Tensor, "batch"]  # row of the prepared cohort; names are looked up, never carried
    subject: Int[Tensor, "batch"]  # two samples of one subject are never negatives unless asked for
    group: Int[Tensor, "batch"]  # scan (ICA) or study (clips): samples that belong together
    present: dict[str, Bool[Tensor, "batch"]]  # a modality may be missing
    inputs: dict[str, Tensor]  # modality -> [batch, views, ...]
    valid: dict[str, Tensor]  # modality -> [batch, views, ...] without the channel axis; False is padding or outside the mask
    times: NotRequired[dict[str, Float[Tensor, "batch views time"]]]  # of the frames, s, NaN where unknown
    rate: NotRequired[dict[str, Float[Tensor, "batch"]]]  # repetition time or frame interval, s, NaN where unknown
    targets: NotRequired[dict[str, Int[Tensor, "batch"]]]  # codes of the label columns an objective names, -1 where missing
    masks: NotRequired[dict[str, Int[Tensor, "batch views time height width"]]]  # per frame; -1 where a frame has none
    context: NotRequired[dict[str, Tensor]]  # covariates


class Encoding(NamedTuple):
    """What an encoder returns for N flattened samples (rows × views)."""

    pooled: Float[Tensor, "batch dim"]
    tokens: Float[Tensor, "batch tokens dim"] | None = None
    levels: tuple[Tensor, ...] | None = None  # multi-scale feature maps, for dense heads
    session: Float[Tensor, "batch dim"] | None = None  # the sample's whole group seen together, equal for all its members


@runtime_checkable
class Encoder(Protocol):
    """An `nn.Module` that turns the samples of one modality into an `Encoding`.

    `x` is [N, channels, ...] for volumes, [N, time] for courses, [N, channels, time, height, width] for clips; `valid` is the
    boolean mask of real positions (no channel axis; frames of clips, [N, time]); `rate` the repetition time or frame
    interval in seconds, [N]; `group` says which samples were acquired together, [N]; `times` are those of a clip's frames in
    seconds, NaN where unknown, [N, time]. An encoder ignores what it does not need.
    """

    dim: int

    def __call__(
        self,
        x: Tensor,
        valid: Tensor | None = None,
        rate: Tensor | None = None,
        group: Tensor | None = None,
        times: Tensor | None = None,
    ) -> Encoding: ...


@runtime_checkable
class Objective(Protocol):
    """An `nn.Module` that scores a batch: returns `loss` and every term, unweighted, for the log."""

    def __call__(self, model: "Model", batch: Batch) -> dict[str, Tensor]: ...


Options = dict[str, Any]
