"""From loaded clips to what encoders see: normalised, sampled in time, augmented views; all on the device."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl4neuro.augment.clip import Clips, residual, sample_frames
from ssl4neuro.augment.clip_intensity import normalise_clips
from ssl4neuro.augment.keyed import Keyed
from ssl4neuro.data.clip_loading import ClipConfig
from ssl4neuro.types import Batch

CINE, MOTION = "cine", "motion"


class ClipViews(nn.Module):
    """Adds the view axis to a batch of clips, [batch, views, channels, time, height, width].

    `motion` is what changes from each frame to the next, X_i - X_(i+1), cyclic, taken after normalisation and augmentation
    (`methods/mvo.md` section 1).

    Args:
        config: frames, sampling and normalisation.
        modalities: `cine`, `motion`, or both.
        augment: augmentation of each modality.
        counts: views per modality, 1 where not named.
        seed: of the run; the same seed, epoch and row give the same view.
    """

    def __init__(
        self, config: ClipConfig, modalities: Sequence[str], augment: Mapping[str, Any], counts: Mapping[str, int], seed: int
    ) -> None:
        super().__init__()
        self.config, self.modalities, self.seed = config, tuple(modalities), seed
        self.augment, self.counts = dict(augment), dict(counts)

    def forward(self, stored: Batch, epoch: int | None) -> Batch:
        """The batch with views; `epoch=None` gives one view of each modality, evenly sampled and not augmented."""
        source = normalise_clips(
            Clips(stored["inputs"][CINE], stored["valid"][CINE], stored["times"][CINE], stored.get("masks", {}).get(CINE)),
            self.config.normalise,
        )
        batch = Batch(**{**stored, "inputs": {}, "valid": {}, "times": {}, "rate": {}, "present": dict(stored["present"])})
        masks: dict[str, Tensor] = {}
        moving = stored["valid"][CINE].sum(1) > 1
        for modality in self.modalities:
            views = self._views(source, stored, modality, epoch)
            batch["inputs"][modality] = torch.stack([view.x for view in views], dim=1)
            batch["valid"][modality] = torch.stack([view.valid for view in views], dim=1)
            batch["times"][modality] = torch.stack([view.times for view in views], dim=1)
            batch["rate"][modality] = _interval(views[0])
            if views[0].masks is not None:
                masks[modality] = torch.stack([view.masks for view in views if view.masks is not None], dim=1)
            if modality == MOTION:
                batch["present"][MOTION] = batch["present"][MOTION] & moving
        if masks:
            batch["masks"] = masks
        else:
            batch.pop("masks", None)
        return batch

    def _views(self, source: Clips, stored: Batch, modality: str, epoch: int | None) -> list[Clips]:
        augmentation = self.augment.get(modality)
        count = self.counts.get(modality, 1) if epoch is not None else 1
        views = []
        for view in range(count):
            if epoch is None or augmentation is None:
                clips = sample_frames(source, self.config.frames, self.config.sampling)
            else:
                keyed = Keyed(self.seed, epoch, stored["row"], view, source.x.device)
                clips = augmentation(source, keyed, group=stored["group"])
            views.append(residual(clips) if modality == MOTION else clips)
        return views


def _interval(clips: Clips) -> Tensor:
    """Mean interval of the sampled frames, s, [batch]; NaN where unknown."""
    last = clips.valid.sum(1).clamp_min(1) - 1
    span = clips.times.gather(1, last[:, None]).squeeze(1) - clips.times[:, 0]
    return torch.where(last > 0, span / last.clamp_min(1), torch.nan)
