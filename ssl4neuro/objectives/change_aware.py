"""Change-aware pairing: half of an embedding keeps who it is, half tells what changed. O5 of the network-state method.

The abstract of the study wants a patient's scans before and after surgery apart, its author's code pulls them together; with
one half each, both can be had, and the distance that a patient's second half travels is a measure of recovery.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl4neuro.objectives.gather import gather
from ssl4neuro.objectives.paired import PairedInfoNCE
from ssl4neuro.objectives.samples import Projects, collect
from ssl4neuro.objectives.supcon import SupCon
from ssl4neuro.types import Batch


def cross_correlation(
    a: Float[Tensor, "sample left"], b: Float[Tensor, "sample right"], eps: float = 1e-6
) -> Float[Tensor, ""]:
    """Mean squared correlation, over samples, of each feature of `a` with each of `b`: 0 where no line relates them, at most 1.

    Fewer than two samples give 0.
    """
    if len(a) < 2:
        return (a.sum() + b.sum()) * 0

    def standard(x: Tensor) -> Tensor:
        return (x - x.mean(0)) / (x.var(0, correction=0) + eps).sqrt()

    return (standard(a).T @ standard(b) / len(a)).square().mean()


class ChangeAware(nn.Module):
    """Splits the projection in two: [what stays ; what changes].

    The first part is trained by paired InfoNCE (`paired.py`: a subject's network before and after are one), the second by
    supervised contrast on `labels` (`supcon.py`), and their cross-correlation is pushed to zero, so that neither repeats the
    other. With the linear projector `identity` on the joint embedding the embedding itself is split, which the network-state
    study does.

    Args:
        on: modality, or `joint`.
        state, network: label columns.
        states: names of the earlier and the later state.
        labels: columns that the second part tells apart; the state alone when None.
        share: of the features, for the first part.
        paired_weight, change_weight, decorrelation_weight: of the three terms.
        paired_temperature, temperature: of the first and the second.

    Source: `methods/network_state.md` section 4, O5.
    """

    def __init__(
        self,
        on: str = "joint",
        state: str = "state",
        network: str = "network",
        states: tuple[str, str] = ("pre", "post"),
        labels: tuple[str, ...] | None = None,
        share: float = 0.5,
        paired_weight: float = 1.0,
        change_weight: float = 1.0,
        decorrelation_weight: float = 1.0,
        paired_temperature: float = 0.1,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        if not 0 < share < 1:
            raise ValueError(f"share is a part of the features, between 0 and 1, got {share}")
        self.on, self.share = on, share
        self.weights = (paired_weight, change_weight, decorrelation_weight)
        self.stays = PairedInfoNCE(on, state, network, states, temperature=paired_temperature)
        self.changes = SupCon(on, labels or (state,), temperature=temperature)
        self.label_columns = tuple(dict.fromkeys((*self.stays.label_columns, *self.changes.label_columns)))
        self.needs = frozenset({(on, "row")})

    def set_levels(self, levels: Mapping[str, Sequence[str]]) -> None:
        """See `PairedInfoNCE.set_levels`."""
        self.stays.set_levels(levels)

    def forward(self, model: Projects, batch: Batch) -> dict[str, Tensor]:
        """`loss`; `stays`, `changes` and `decorrelation`, unweighted; `accuracy` and `pairs` of the first.

        Raises:
            NoNegatives: there are pairs, none of which has a negative.
        """
        first, second = (Part(model, self.share, later) for later in (False, True))
        stays = self.stays(first, batch)
        changes = self.changes(second, batch)
        decorrelation = self._decorrelation(model, batch)
        terms = (stays["loss"], changes["loss"], decorrelation)
        loss = sum(weight * term for weight, term in zip(self.weights, terms, strict=True))
        named = dict(zip(("stays", "changes", "decorrelation"), (term.detach() for term in terms), strict=True))
        return {"loss": torch.as_tensor(loss), **named, "accuracy": stays["accuracy"], "pairs": stays["pairs"]}

    def _decorrelation(self, model: Projects, batch: Batch) -> Float[Tensor, ""]:
        samples = collect(model, batch, (self.on,))
        everybody = gather(samples.projected[0], samples.parts).flatten(0, 1)
        cut = boundary(everybody.shape[-1], self.share)
        with torch.autocast(everybody.device.type, enabled=False):
            return cross_correlation(everybody[:, :cut], everybody[:, cut:])


class Part(NamedTuple):
    """A model whose projections are one part of another's."""

    model: Projects
    share: float
    later: bool  # the second part

    def project(self, batch: Batch, modality: str) -> Float[Tensor, "batch views part"]:
        """The part of every projection."""
        return self._cut(self.model.project(batch, modality))

    def project_sessions(
        self, batch: Batch, modality: str
    ) -> tuple[Float[Tensor, "session views part"], Int[Tensor, "session"]]:
        """The part of every session's projection."""
        values, first = self.model.project_sessions(batch, modality)
        return self._cut(values), first

    def _cut(self, values: Tensor) -> Tensor:
        cut = boundary(values.shape[-1], self.share)
        return values[..., cut:] if self.later else values[..., :cut]


def boundary(dim: int, share: float) -> int:
    """Number of features of the first part; both parts have at least one.

    Raises:
        ValueError: there are fewer than two features.
    """
    if dim < 2:
        raise ValueError(f"a projection of {dim} feature cannot be split in two")
    return min(max(1, round(share * dim)), dim - 1)
