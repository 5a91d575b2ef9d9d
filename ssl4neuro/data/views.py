"""From stored rows to what encoders see: maps scattered onto the grid, augmented views, all on the device."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from ssl4neuro.augment import AUGMENTATIONS
from ssl4neuro.augment.keyed import Keyed
from ssl4neuro.data.clip_loading import ClipConfig
from ssl4neuro.data.clip_views import ClipViews
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.errors import UserError
from ssl4neuro.registry import Component, build
from ssl4neuro.types import Batch


@runtime_checkable
class Augmentation(Protocol):
    """Draws parameters from `keyed` and applies them: pure in (seed, epoch, row, view)."""

    def __call__(
        self, x: Tensor, valid: Tensor, keyed: Keyed, group: Tensor | None = None, rate: Tensor | None = None
    ) -> tuple[Tensor, Tensor]: ...


class Views(nn.Module):
    """Adds the view axis to a stored batch.

    Args:
        mask: grid mask that the stored map voxels fill in C order; None when there are no maps.
        augment: augmentation of each modality; one without stays as it is.
        counts: views per modality, 1 where not named.
        seed: of the run; the same seed, epoch and row give the same view.
    """

    inside: Tensor
    voxels: Tensor

    def __init__(
        self, mask: Bool[np.ndarray, "x y z"] | None, augment: Mapping[str, Any], counts: Mapping[str, int], seed: int
    ) -> None:
        super().__init__()
        grid = torch.zeros(1, 1, 1, dtype=torch.bool) if mask is None else torch.from_numpy(np.ascontiguousarray(mask))
        self.register_buffer("inside", grid, persistent=False)
        self.register_buffer("voxels", grid.flatten().nonzero().squeeze(1), persistent=False)
        self.augment, self.counts, self.seed = dict(augment), dict(counts), seed

    def forward(self, stored: Batch, epoch: int | None) -> Batch:
        """The batch with inputs [batch, views, ...]; `epoch=None` gives one view of each modality, not augmented."""
        inputs, valid = {}, {}
        for modality, values in stored["inputs"].items():
            x, real = self._sample(modality, values, stored["valid"].get(modality))
            augmentation = self.augment.get(modality)
            if epoch is None or augmentation is None:
                count = self.counts.get(modality, 1) if epoch is not None else 1
                views = [(x, real)] * count
            else:
                views = [
                    augmentation(
                        x, real, Keyed(self.seed, epoch, stored["row"], view, x.device),
                        group=stored["group"], rate=stored.get("rate", {}).get(modality),
                    )
                    for view in range(self.counts.get(modality, 1))
                ]  # fmt: skip
            inputs[modality] = torch.stack([view for view, _ in views], dim=1)
            valid[modality] = torch.stack([real for _, real in views], dim=1)
        return Batch(**{**stored, "inputs": inputs, "valid": valid})

    def _sample(self, modality: str, values: Tensor, real: Tensor | None) -> tuple[Tensor, Tensor]:
        if modality == "map":
            return self.scatter(values), self.inside.expand(len(values), *self.inside.shape)
        x = values.float()
        return x, torch.ones_like(x, dtype=torch.bool) if real is None else real

    def scatter(self, values: Tensor) -> Tensor:
        """In-mask voxels [n, voxels] on the grid, zero outside: [n, 1, x, y, z]."""
        volume = torch.zeros(len(values), self.inside.numel(), device=values.device)
        volume[:, self.voxels] = values.float()
        return volume.view(len(values), 1, *self.inside.shape)


def make_views(
    cohort: Cohort,
    modalities: Sequence[str],
    *,
    clip: ClipConfig | None = None,
    augment: Mapping[str, Component] | None = None,
    counts: Mapping[str, int] | None = None,
    seed: int = 0,
) -> Views | ClipViews:
    """What turns this cohort's stored batches into views of the `modalities`.

    Raises:
        UserError: an augmentation that there is not, or that is not for such data.
    """
    built = {}
    for name, component in (augment or {}).items():
        where = f"modalities.{name}.augment"
        if component.name in AUGMENTATIONS and (component.name == "clip") != (cohort.kind == "clips"):
            raise UserError(f"{where}: '{component.name}' is not for the {name} of a cohort of kind '{cohort.kind}'")
        if cohort.kind == "clips" and clip is not None:
            repeats = cohort.info["contract"]["cine"]["cyclic"] is True
            given = {"frames": clip.frames, "sampling": clip.sampling, "cyclic": repeats, **component.options}
            component = Component(component.name, given)
        built[name] = build(AUGMENTATIONS, component, where)
    if cohort.kind == "clips":
        return ClipViews(clip or ClipConfig(), modalities, built, counts or {}, seed)
    return Views(cohort.mask, built, counts or {}, seed)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with every tensor on `device`."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        return {key: move(inner) for key, inner in value.items()}

    return move(batch)
