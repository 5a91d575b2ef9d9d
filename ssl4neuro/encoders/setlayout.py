"""Between flat rows [N, ...] and padded sets [sets, members, ...]: which rows were acquired together."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class SetLayout(NamedTuple):
    """Where each row sits in the padded sets."""

    which: Int[Tensor, "batch"]  # the row's set, 0..sets-1, in the order of the sorted group codes
    slot: Int[Tensor, "batch"]  # the row's place within its set
    member: Bool[Tensor, "sets members"]  # which places are taken

    def pad(self, rows: Float[Tensor, "batch *shape"]) -> Float[Tensor, "sets members *shape"]:
        """Rows in their places, zeros elsewhere."""
        out = rows.new_zeros(*self.member.shape, *rows.shape[1:])
        return out.index_put((self.which, self.slot), rows)

    def unpad(self, sets: Float[Tensor, "sets members *shape"]) -> Float[Tensor, "batch *shape"]:
        """The inverse of `pad`."""
        return sets[self.which, self.slot]


def set_layout(group: Int[Tensor, "batch"], largest: int) -> SetLayout:
    """Places for rows with equal codes.

    Raises:
        ValueError: a set with more than `largest` members (its correlation matrix would need too much memory).
    """
    _, which, counts = torch.unique(group, return_inverse=True, return_counts=True)
    members = int(counts.max())
    if members > largest:
        raise ValueError(f"{members} courses in one session; at most max_components={largest} are allowed")
    order = torch.argsort(which, stable=True)
    first = torch.cumsum(counts, 0) - counts
    slot = torch.empty_like(which)
    slot[order] = torch.arange(len(which), device=which.device) - first[which[order]]
    member = torch.arange(members, device=which.device) < counts[:, None]
    return SetLayout(which, slot, member)
