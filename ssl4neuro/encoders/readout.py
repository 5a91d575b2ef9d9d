"""From a set of components to one vector for the session: the connectivity between learned prototypes."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ssl4neuro.encoders.connectivity import connectivity
from ssl4neuro.encoders.setlayout import SetLayout, set_layout


class Relations(NamedTuple):
    """The courses of the batch as padded sets."""

    layout: SetLayout
    member: Bool[Tensor, "sets members"]  # places taken by a course with any valid time point
    z: Float[Tensor, "sets members members"]  # Fisher-z correlations, zero diagonal


def relations(
    x: Float[Tensor, "batch time"], valid: Bool[Tensor, "batch time"], group: Int[Tensor, "batch"] | None, largest: int
) -> Relations:
    """FNC of every session in the batch; `group` None means that all rows are one session.

    A function of the data alone, in float32 and without gradient. Raises ValueError for a session of more than `largest`.
    """
    group = torch.zeros(len(x), dtype=torch.int64, device=x.device) if group is None else group
    layout = set_layout(group, largest)
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        padded = layout.pad(valid.float()) > 0
        z = connectivity(layout.pad(torch.where(valid, x, 0.0).float()), padded, layout.member)
    return Relations(layout, layout.member & padded.any(2), z)


class SetReadout(nn.Module):
    """Session vector of padded sets.

    Each of `networks` prototypes attends to the components that resemble it, P = softmax over the components, and S = P Z P' is
    the FNC reordered and pooled to a fixed size. The output is linear in it, so that what is a person's own survives,
    trained or not, as far as the features tell the components apart. (On 20 people, a non-linear layer or the features'
    moments beside it fitted the training people and lost a sixth of the identification of unseen ones.)

    Args:
        features: length of the components' features.
        dim: length of the output.
        networks: prototypes.
    """

    def __init__(self, features: int, dim: int, networks: int):
        super().__init__()
        self.prototypes = nn.Parameter(torch.randn(networks, features))
        # Sharp from the start (a prototype picks one or two of 53 components): flat ones average persons out.
        self.log_sharpness = nn.Parameter(torch.tensor(4.0).log())
        upper = torch.triu_indices(networks, networks)
        self.register_buffer("upper", upper[0] * networks + upper[1], persistent=False)
        self.linear = nn.Linear(upper.shape[1], dim)

    def forward(
        self,
        h: Float[Tensor, "sets members features"],
        z: Float[Tensor, "sets members members"],
        member: Bool[Tensor, "sets members"],
    ) -> Float[Tensor, "sets dim"]:
        """Finite also for sets without members."""
        mask = member[:, :, None].to(h.dtype)
        count = mask.sum(1, keepdim=True).clamp_min(1)
        mean = (h * mask).sum(1, keepdim=True) / count
        spread = (((h - mean) * mask).square().sum(1, keepdim=True) / count + 1e-5).sqrt()
        # Relative to the set: what all components of a scan share must not decide which prototype each of them meets.
        relative = (h - mean) / spread * mask
        logits = (relative @ self.prototypes.T).float() * (self.log_sharpness.exp() / h.shape[2] ** 0.5)
        share = (logits.masked_fill(~member[:, :, None], -1e4).softmax(1) * mask).float()
        with torch.autocast(h.device.type, enabled=False):
            reordered = (share.transpose(1, 2) @ z @ share).flatten(1)[:, self.upper]
        return self.linear(reordered)


class SessionReadout(nn.Module):
    """Session vector from any features of its components and from their courses.

    With features that know which component is which, such as those of the maps or of the fused modalities, this is a learned
    reordering of the FNC; the courses alone rarely identify a component.

    Args:
        features: length of the given features.
        dim: length of the output.
        networks: prototypes; identification of persons grew up to the number of components.
        max_components: largest session (memory grows with its square).
    """

    def __init__(self, features: int, dim: int = 128, networks: int = 64, max_components: int = 512):
        super().__init__()
        self.dim, self.max_components = dim, max_components
        self.readout = SetReadout(features, dim, networks)

    def forward(
        self,
        features: Float[Tensor, "batch features"],
        x: Float[Tensor, "batch time"],
        valid: Bool[Tensor, "batch time"] | None = None,
        group: Int[Tensor, "batch"] | None = None,
    ) -> Float[Tensor, "batch dim"]:
        """The same vector for all rows of a group. Two augmented views of a scan are two groups."""
        valid = torch.ones_like(x, dtype=torch.bool) if valid is None else valid
        layout, member, z = relations(x, valid, group, self.max_components)
        return self.readout(layout.pad(features), z, member)[layout.which]
