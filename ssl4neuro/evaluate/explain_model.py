"""Eigen-CAM and occlusion of one model's encoders on given rows of a cohort: what a study inside a fold calls, too.

Nothing is fitted here and nothing is averaged: a value for every row asked for. Which rows those are (unseen subjects only),
and which direction of the embedding is explained, is the caller's business.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.parcels import Parcels, make_parcels
from ssl4neuro.data.scan import Grid
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.explain_fill import Fill
from ssl4neuro.evaluate.explain_inputs import Encode, Inputs, sees_sessions
from ssl4neuro.evaluate.explain_parts import ExplainConfig, Parts, band_parts, picture_parts, region_parts
from ssl4neuro.explain import band_edges, dissimilarity, drop, eigen_cam, occlusion
from ssl4neuro.model import JOINT, Model
from ssl4neuro.progress import progress

Method = Literal["eigencam", "occlusion"]
METHODS: tuple[Method, ...] = ("eigencam", "occlusion")


@dataclass
class Explanation:
    """One modality, one value per row (or row and part), in the order of `rows`."""

    modality: str
    rows: Int[np.ndarray, "rows"]
    cams: list[np.ndarray] = field(default_factory=list)  # 0 to 1 on the input's grid; of maps and courses where valid
    share: Float[np.ndarray, "rows"] | None = None  # of the features' squares in the first component
    changes: dict[str, np.ndarray] = field(default_factory=dict)  # kind -> [rows, parts]; NaN where a row lacks the part
    parts: dict[str, pd.DataFrame] = field(default_factory=dict)  # kind -> names and places of the parts
    grid: Grid | None = None  # of maps
    parcels: Parcels | None = None


def explain_model(
    model: Model,
    cohort: Cohort | Inputs,
    rows: Int[np.ndarray, "rows"],
    direction: Mapping[str, Float[np.ndarray, "*rows dim"]] | None = None,
    *,
    fill: Mapping[str, Fill] | None = None,
    modalities: Collection[str] | None = None,
    methods: Collection[Method] = METHODS,
    column: str | None = None,
    config: ExplainConfig | None = None,
    show: bool = True,
) -> dict[str, Explanation]:
    """Explanations of the encoders of `model` on rows of a cohort, by modality.

    Args:
        model: in evaluation mode.
        cohort: prepared; `Inputs` where clips, a device or adaptations matter.
        rows: of the cohort; of subjects that neither the encoder nor the direction was fitted on.
        direction: by modality, in the embedding: occlusion gives the fall of `embedding · direction`. One vector for all rows,
            or one per row (say, +w for rows of one class and -w for the other, so that it is the fall of the right answer).
            None: one minus the cosine of the embeddings with and without the part.
        fill: by modality, volumes that take the place of a region, see `explain_fill`; 0 without.
        modalities: which; by default all that model and cohort have.
        methods: eigencam, occlusion or both.
        column: None for the encoder's own embedding, or `joint` for the fused one (one modality altered, the others as they
            are); Eigen-CAM is of the encoder in any case.
        config: parts and sizes.
        show: the progress bar.

    Raises:
        UserError: a modality that is not there, Eigen-CAM of an encoder that keeps no positions, no row with a known TR, or an
            atlas that does not fit.
    """
    inputs = cohort if isinstance(cohort, Inputs) else Inputs(cohort, model.modalities)
    chosen = inputs.modalities if modalities is None else tuple(modalities)
    for name in chosen:
        if name not in inputs.modalities:
            raise UserError(f"modality: run and cohort do not both have '{name}', they share {', '.join(inputs.modalities)}")
    if column not in (None, JOINT) or (column == JOINT and model.fusion is None):
        raise UserError(
            f"column: '{column}' is not an embedding of this run's rows; leave it out to explain each encoder's own"
        )
    found = {}
    for modality in chosen:
        work = _Work(model, inputs, modality, column or modality, tuple(methods), config or ExplainConfig())
        with progress(f"explain {modality}", len(rows), "row", show=show) as bar:
            found[modality] = work.run(
                np.asarray(rows), (direction or {}).get(modality), (fill or {}).get(modality), bar.advance
            )
    return found


@dataclass(frozen=True)
class _Work:
    """One modality through the methods, batch after batch."""

    model: Model
    inputs: Inputs
    modality: str
    column: str
    methods: tuple[Method, ...]
    config: ExplainConfig

    def run(
        self, rows: np.ndarray, direction: np.ndarray | None, fill: Fill | None, advance: Callable[[int], None]
    ) -> Explanation:
        found = Explanation(self.modality, rows)
        place = {row: i for i, row in enumerate(rows.tolist())}
        if direction is not None:
            direction = np.broadcast_to(direction, (len(rows), direction.shape[-1])).astype(np.float32)
        if "eigencam" in self.methods:
            found.cams, found.share = [np.zeros(0)] * len(rows), np.zeros(len(rows))
        for chunk in self.inputs.chunks(rows, self.config.batch, sees_sessions(self.model, self.inputs, self.modality, rows)):
            encode = Encode(self.model, self.inputs.batch(chunk), self.modality, self.column)
            kept = np.array([i for i, row in enumerate(chunk.tolist()) if row in place])  # others of the scan are company only
            target = np.array([place[row] for row in chunk[kept].tolist()])
            if found.grid is None:
                found.grid = self._grid(encode)
            if "eigencam" in self.methods:
                self._cam(found, encode, kept, target)
            if "occlusion" in self.methods:
                own = None if fill is None else self._own(fill, encode.x, kept, target)
                self._occlude(found, encode, kept, target, None if direction is None else direction[target], own)
            advance(len(kept))
        return found

    def _cam(self, found: Explanation, encode: Encode, kept: np.ndarray, target: np.ndarray) -> None:
        encoder: Any = self.model.encoders[self.modality]
        cam = eigen_cam(encoder, encode.x, **encode.arguments, level=self.config.level)
        assert found.share is not None
        found.share[target] = cam.share.cpu().numpy()[kept]
        values, valid = cam.values.cpu().numpy(), encode.arguments["valid"].cpu().numpy()
        for i, at in zip(kept, target, strict=True):
            inside = found.grid.mask if found.grid is not None else valid[i] if values.ndim == 2 else ...
            found.cams[at] = values[i][inside]

    def _occlude(
        self,
        found: Explanation,
        encode: Encode,
        kept: np.ndarray,
        target: np.ndarray,
        direction: np.ndarray | None,
        fill: Tensor | None,
    ) -> None:
        device = self.inputs.device
        own = torch.from_numpy(kept).to(device)
        compare = dissimilarity if direction is None else drop(torch.from_numpy(direction).to(device))
        for kind, parts in self._parts(found, encode, fill).items():
            if kind not in found.changes:
                found.parts[kind] = parts.table
                found.changes[kind] = np.full((len(found.rows), len(parts.table)), np.nan, dtype=np.float32)
            changes = occlusion(lambda x: encode(x)[own], encode.x, parts.alters, compare).float().cpu().numpy()
            found.changes[kind][target] = np.where(parts.there[kept], changes, np.nan)

    def _parts(self, found: Explanation, encode: Encode, fill: Tensor | None) -> dict[str, Parts]:
        x = encode.x
        if found.grid is not None:
            if found.parcels is None:
                found.parcels = make_parcels(self.config.atlas, found.grid)
            return region_parts(found.parcels, x, fill)
        if x.ndim == 2:
            rates = self.inputs.cohort.index["tr"].to_numpy(np.float64)[found.rows]
            if not (np.isfinite(rates) & (rates > 0)).any():
                raise UserError(
                    f"{self.inputs.cohort.path}: no repetition time is known, so there are no frequency bands; give TRs when"
                    " preparing, or explain with --method eigencam"
                )
            return band_parts(band_edges(rates.tolist(), self.config.bands), encode.arguments)
        return picture_parts(self.config, x, encode.arguments["valid"])

    def _own(self, fill: Fill, x: Tensor, kept: np.ndarray, target: np.ndarray) -> Tensor:
        """The volume of each row of the batch; 0 for those that are company only."""
        own = torch.zeros_like(x)
        own[torch.from_numpy(kept)] = torch.from_numpy(fill.volumes[fill.which[target]])[:, None].to(x)
        return own

    def _grid(self, encode: Encode) -> Grid | None:
        """Of volumes, with the voxels that are valid in all of them; None for other inputs."""
        valid = encode.arguments["valid"]
        if valid.ndim != 4 or self.inputs.affine is None:
            return None
        return Grid(np.asarray(self.inputs.affine), valid[0].cpu().numpy())
