"""Batches of a cohort as one encoder sees them, and that encoder as a function of its input alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl4neuro.data.clip_loading import ClipConfig
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.loader import CohortRows
from ssl4neuro.data.views import make_views, to_device
from ssl4neuro.model import JOINT, Model
from ssl4neuro.types import Batch


class Inputs:
    """Batches without augmentation, one view each.

    Args:
        cohort: prepared.
        modalities: to load; those that the cohort lacks are left out.
        device: for the tensors.
        clip: how clips are cut; needed for clips.
        adapt: from a batch of the cohort to what the checkpoint expects.
        affine: of the grid of maps after `adapt`; by default the cohort's.
    """

    def __init__(
        self,
        cohort: Cohort,
        modalities: Sequence[str],
        device: torch.device | str = "cpu",
        clip: ClipConfig | None = None,
        adapt: Callable[[Batch], Batch] | None = None,
        affine: Float[np.ndarray, "4 4"] | None = None,
    ) -> None:
        self.cohort, self.device, self.adapt = cohort, torch.device(device), adapt
        self.stored = CohortRows(cohort, modalities, clip=clip)
        self.views = make_views(cohort, self.modalities, clip=clip).to(self.device)
        self.affine = affine if affine is not None or cohort.mask is None else cohort.affine  # type: ignore[attr-defined]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Those that there are."""
        return self.stored.modalities

    def batch(self, rows: Int[np.ndarray, "rows"]) -> Batch:
        """The rows, in the order asked."""
        batch = self.views(to_device(self.stored.__getitems__(rows.tolist()), self.device), None)
        return batch if self.adapt is None else self.adapt(batch)

    def chunks(self, rows: Int[np.ndarray, "rows"], size: int, whole_scans: bool) -> Iterator[Int[np.ndarray, "_"]]:
        """`rows` in batches of `size`; with `whole_scans` scan by scan, with the rows of it that were not asked for."""
        if not whole_scans:
            yield from np.split(rows, range(size, len(rows), size))
            return
        group = self.cohort.index["group_code"].to_numpy()
        yield from (np.flatnonzero(group == scan) for scan in np.unique(group[rows]))


@dataclass(frozen=True)
class Encode:
    """From inputs of one modality to embeddings, all else of the batch as it is.

    `column` is the modality itself, for the encoder's own embedding, or `joint`.
    """

    model: Model
    batch: Batch
    modality: str
    column: str

    @property
    def x(self) -> Tensor:
        """The input as it is."""
        return self.batch["inputs"][self.modality][:, 0]

    @property
    def arguments(self) -> dict[str, Any]:
        """Everything that the encoder takes beside the input."""
        return self._arguments(self.modality)

    def __call__(self, x: Tensor) -> Float[Tensor, "batch dim"]:
        """Embeddings of another input."""
        pooled = self.model.encoders[self.modality](x, **self.arguments).pooled
        if self.column != JOINT:
            return pooled
        assert self.model.fusion is not None
        return self.model.fusion({**self._others, self.modality: pooled}, self.batch["present"])

    @cached_property
    def _others(self) -> dict[str, Tensor]:
        """Embeddings of the other modalities; zeros, for which the fusion has a stand-in, where the cohort has none."""
        found = {}
        for name in self.model.modalities:
            if name == self.modality:
                continue
            if name in self.batch["inputs"]:
                encoder, x = self.model.encoders[name], self.batch["inputs"][name][:, 0]
                found[name] = encoder(x, **self._arguments(name)).pooled
            else:
                found[name] = torch.zeros(len(self.x), self.model.dims[name], device=self.x.device)
        return found

    def _arguments(self, name: str) -> dict[str, Any]:
        rate, times = self.batch.get("rate", {}).get(name), self.batch.get("times", {}).get(name)
        return {
            "valid": self.batch["valid"][name][:, 0],
            "rate": rate,
            "group": self.batch["group"],
            "times": None if times is None else times[:, 0],
        }


def embed_rows(
    model: Model, inputs: Inputs, rows: Int[np.ndarray, "rows"], modality: str, column: str, size: int = 32
) -> Float[np.ndarray, "rows dim"]:
    """The embedding that is explained, of given rows."""
    place = {row: i for i, row in enumerate(rows.tolist())}
    parts: dict[int, np.ndarray] = {}
    for chunk in inputs.chunks(rows, size, sees_sessions(model, inputs, modality, rows)):
        encode = Encode(model, inputs.batch(chunk), modality, column)
        with torch.no_grad():
            values = encode(encode.x).float().cpu().numpy()
        parts |= {place[row]: vector for row, vector in zip(chunk.tolist(), values, strict=True) if row in place}
    return np.stack([parts[i] for i in range(len(rows))])


def sees_sessions(model: Model, inputs: Inputs, modality: str, rows: Int[np.ndarray, "rows"]) -> bool:
    """Whether the encoder looks at the rows of a scan together, so that none may be left out."""
    encode = Encode(model, inputs.batch(rows[:1]), modality, modality)
    with torch.no_grad():
        return model.encoders[modality](encode.x, **encode.arguments).session is not None
