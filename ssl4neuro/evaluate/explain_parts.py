"""What of an input is taken away: regions of an atlas, frequency bands, patches, phases; by modality, from the data's form."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from ssl4neuro.data.parcels import Parcels
from ssl4neuro.explain import EDGES, holds_band, patches, regions, without_band, without_patch, without_phase
from ssl4neuro.explain.occlusion import Alter

REGION, BAND, PATCH, PHASE = "region", "band", "patch", "phase"
TABLES = {REGION: "regions", BAND: "bands", PATCH: "patches", PHASE: "phases"}


@dataclass(frozen=True)
class ExplainConfig:
    """How to explain."""

    atlas: str = "seitzman"  # see `data.parcels.make_parcels`
    fill: Literal["mean", "zero"] = "mean"  # in the place of a region of a map; see `explain_fill`
    bands: tuple[float, ...] = EDGES  # Hz, edges; the Nyquist frequency ends the last
    patch: int = 8  # pixels, side of the squares of clips
    phases: int = 8  # equal parts of a clip
    level: int | None = None  # of the features, for Eigen-CAM; see `explain.eigencam.feature_map`
    batch: int = 32  # rows at once


@dataclass(frozen=True)
class Parts:
    """The parts of one kind: one line of `table` each, with how to take it away and which rows of the batch have it."""

    table: pd.DataFrame
    alters: list[Alter]
    there: Bool[np.ndarray, "batch parts"]


def region_parts(parcels: Parcels, x: Tensor, fill: Tensor | None = None) -> dict[str, Parts]:
    """The regions of an atlas on the grid of the volumes; `fill` [N or 1, 1, x, y, z] takes their place, 0 without."""
    labels = torch.from_numpy(parcels.labels).to(x.device)
    return {REGION: _everywhere(parcels.table, list(regions(labels, parcels.table["code"], fill)), x)}


def band_parts(edges: Sequence[float], arguments: dict[str, Any]) -> dict[str, Parts]:
    """Frequency bands between `edges` (Hz); a course has those below its Nyquist frequency."""
    pairs = list(itertools.pairwise(edges))
    table = pd.DataFrame(pairs, columns=["low", "high"])
    table.insert(0, "band", [f"{low:.3g} to {high:.3g} Hz" for low, high in pairs])
    valid, rate = arguments["valid"], arguments["rate"]
    alters = [without_band(valid, rate, low, high) for low, high in pairs]
    there = torch.stack([holds_band(rate, low) for low, _ in pairs], dim=1)
    return {BAND: Parts(table, alters, there.cpu().numpy())}


def picture_parts(config: ExplainConfig, x: Tensor, valid: Tensor | None) -> dict[str, Parts]:
    """Square patches, in every frame; of clips also the phases of the recording, in which all pixels are taken away."""
    boxes = patches(x.shape[-2], x.shape[-1], config.patch)
    table = pd.DataFrame(boxes, columns=["top", "bottom", "left", "right"])
    table.insert(0, "patch", [f"row {top} column {left}" for top, _, left, _ in boxes])
    found = {PATCH: _everywhere(table, [without_patch(box) for box in boxes], x)}
    if x.ndim == 5 and valid is not None:
        edges = np.linspace(0, 1, config.phases + 1)
        pairs = list(itertools.pairwise(edges))
        phases = pd.DataFrame({"phase": [f"{a:.0%} to {b:.0%}" for a, b in pairs], "first": edges[:-1], "end": edges[1:]})
        found[PHASE] = _everywhere(phases, [without_phase(a, b, valid) for a, b in pairs], x)
    return found


def _everywhere(table: pd.DataFrame, alters: list[Alter], x: Tensor) -> Parts:
    return Parts(table, alters, np.ones((len(x), len(alters)), dtype=bool))
