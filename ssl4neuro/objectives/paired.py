"""Paired InfoNCE: one subject's network before and after is the positive pair. O2 of the network-state method."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.objectives.gather import gather
from ssl4neuro.objectives.infonce import info_nce
from ssl4neuro.objectives.negatives import NoNegatives
from ssl4neuro.objectives.samples import LABELS, SUBJECT, Projects, collect, same
from ssl4neuro.objectives.similarity import Selection, unit
from ssl4neuro.objectives.temperature import Temperature
from ssl4neuro.types import Batch


def paired_info_nce(
    first: Float[Tensor, "pair dim"],
    second: Float[Tensor, "pair dim"],
    subject: Int[Tensor, "pair"],
    network: Int[Tensor, "pair"],
    scale: Float[Tensor, ""],
    symmetric: bool = True,
    same_subject: bool = False,
    same_network: bool = True,
    in_view: bool = False,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Int[Tensor, ""]]:
    """Mean InfoNCE over pairs that have a negative, share of them whose partner is the closest, and how many they are.

    Vectors have length one; line k of `first` and `second` is one pair. Symmetric, with all negatives, it is the mean of the
    cross entropies of the similarity matrix and of its transpose.

    Args:
        same_subject, same_network: whether another network of the subject, and the network in other subjects, is a negative.
        in_view: also take negatives from the anchor's own side (2N - 2 of them).
    """
    position = torch.arange(len(first), device=first.device)
    copies = 2 if in_view else 1
    differ = [] if same_subject else [(subject, subject.repeat(copies))]
    differ += [] if same_network else [(network, network.repeat(copies))]
    skip = torch.stack([position + copy * len(first) for copy in range(copies)], dim=1)
    negatives = Selection(differ=tuple(differ), skip=skip)
    losses, accurate, counts = [], [], []
    for anchor, partner in [(first, second), (second, first)] if symmetric else [(first, second)]:
        candidate = torch.cat([partner, anchor]) if in_view else partner
        loss, closest, found = info_nce(anchor, partner, candidate, negatives, scale)
        losses.append(loss.sum())
        accurate.append(closest.sum())
        counts.append(found.sum())
    count = torch.stack(counts).sum()
    share = 1 / count.clamp_min(1).to(first.dtype)
    return torch.stack(losses).sum() * share, torch.stack(accurate).sum() * share, counts[0]


class PairedInfoNCE(nn.Module):
    """Pulls together the two states of the same (subject, network) and apart from other pairs.

    The components that one (subject, network, state) has in the batch are averaged first, so that each has one vector, as
    in the method's aggregated mode. Views are paired view by view. The pairs of all processes together are scored in every
    process: a subject's two scans may have been dealt to two of them. A batch without a pair gives a loss of 0.

    Args:
        on: modality, or `joint`.
        state, network: label columns.
        states: names of the earlier and the later state; see `set_levels`.
        direction: `symmetric`, or `pre_to_post`: earlier anchors, later candidates only.
        same_subject, same_network, in_view: see `paired_info_nce`.

    Source: `methods/network_state.md` section 4, O2. The preset `author_repo` is the first author's repository.
    """

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "author_repo": {"direction": "pre_to_post", "temperature": 0.05, "same_subject": True, "in_view": False}
    }

    def __init__(
        self,
        on: str = "joint",
        state: str = "state",
        network: str = "network",
        states: tuple[str, str] = ("pre", "post"),
        temperature: float = 0.05,
        learn_temperature: bool = False,
        direction: Literal["symmetric", "pre_to_post"] = "symmetric",
        same_subject: bool = False,
        same_network: bool = True,
        in_view: bool = False,
    ) -> None:
        super().__init__()
        self.on, self.states, self.direction = on, states, direction
        self.same_subject, self.same_network, self.in_view = same_subject, same_network, in_view
        self.label_columns = (network, state)
        self.needs = frozenset({(on, "row")})
        self.temperature = Temperature(temperature, learn_temperature)
        self._codes: tuple[int, int] | None = None

    def set_levels(self, levels: Mapping[str, Sequence[str]]) -> None:
        """Tell which code stands for which label: `levels[column][code]`.

        Needed for one direction and for more than two states; otherwise the batch's two codes are the two states.

        Raises:
            ValueError: `states` are not among the labels of the state column.
        """
        names = list(levels[self.label_columns[1]])
        if not set(self.states) <= set(names):
            if self.direction == "symmetric" and len(names) == 2:
                return  # whatever they are called, there are two and their order does not matter
            column = self.label_columns[1]
            raise ValueError(f"states: '{column}' has {', '.join(names)}, not {' and '.join(self.states)}")
        self._codes = names.index(self.states[0]), names.index(self.states[1])

    def forward(self, model: Projects, batch: Batch) -> dict[str, Tensor]:
        """`loss`, `accuracy`, `pairs` (in all processes together) and `temperature`.

        Raises:
            NoNegatives: there are pairs, none of which has a negative.
            ValueError: the codes do not say which state is the earlier one.
        """
        samples = collect(model, batch, (self.on,), "row", self.label_columns)
        everybody = gather(unit(samples.projected[0]), samples.parts)
        codes = samples.codes
        first, second, cell = self._pair(everybody, codes)
        scale = self.temperature(everybody)
        terms = {"pairs": scale.new_full((), len(first)), "temperature": 1 / scale.detach()}
        if len(first) == 0:
            # Still a function of every input: all processes then go through the same backward passes.
            return {"loss": (everybody.sum() + scale) * 0, "accuracy": scale.new_zeros(()), **terms}
        subject, network = cell[:, 0], cell[:, 1]
        options = (self.direction == "symmetric", self.same_subject, self.same_network, self.in_view)
        views = [paired_info_nce(first[:, v], second[:, v], subject, network, scale, *options) for v in range(first.shape[1])]
        if all(count == 0 for _, _, count in views):
            raise NoNegatives(samples.rows, "the batch's pairs are of one subject or network, which are no negatives")
        losses, accuracies, _ = zip(*views, strict=True)
        return {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(accuracies).mean(), **terms}

    def _pair(
        self, everybody: Float[Tensor, "sample views dim"], codes: Int[Tensor, "sample codes"]
    ) -> tuple[Float[Tensor, "pair views dim"], Float[Tensor, "pair views dim"], Int[Tensor, "pair 2"]]:
        """Mean vectors of the two states, and (subject, network), of each pair."""
        cells = codes[:, [SUBJECT, LABELS]]
        number = same(cells)
        count = int(number.max()) + 1 if len(number) else 0
        means, there = [], []
        for code in self._two_states(codes[:, LABELS + 1]):
            member = codes[:, LABELS + 1] == code
            sums = everybody.new_zeros(count, *everybody.shape[1:])
            means.append(unit(sums.index_add(0, number[member], everybody[member])))
            there.append(torch.bincount(number[member], minlength=count) > 0)
        both: Bool[Tensor, cell] = there[0] & there[1]
        cell = cells.new_zeros(count, 2).index_copy(0, number, cells)
        return means[0][both], means[1][both], cell[both]

    def _two_states(self, codes: Int[Tensor, "sample"]) -> tuple[int, int]:
        if self._codes is not None:
            return self._codes
        if self.direction == "pre_to_post":
            raise ValueError("direction pre_to_post needs to know which state is the earlier one (set_levels)")
        found = torch.unique(codes).tolist()
        if len(found) > 2:
            raise ValueError(f"'{self.label_columns[1]}' has more than two states; which two to pair is unknown (set_levels)")
        return (found[0], found[1]) if len(found) == 2 else (0, 1)
