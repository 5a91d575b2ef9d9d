"""Embeddings of some rows of a cohort in memory, for studies that train an encoder per fold; `embed` writes them to disk."""

import numpy as np
import torch
from jaxtyping import Float, Int

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.loader import CohortRows, load_batches
from ssl4neuro.data.views import make_views, to_device
from ssl4neuro.model import JOINT, Model

ROWS_PER_BATCH = 64


def embed_rows(
    model: Model, cohort: Cohort, rows: Int[np.ndarray, "rows"], device: torch.device | str = "cpu"
) -> Float[np.ndarray, "rows dim"]:
    """Embeddings of rows, not augmented: the joint one, or those of all modalities side by side where nothing fuses them.

    Encoders that look at a whole scan see its rows of one batch only, so rows of a scan should be few and together.

    Args:
        model: in evaluation mode.
    """
    stored = CohortRows(cohort, model.modalities)
    views = make_views(cohort, stored.modalities).to(device)
    groups = cohort.index["group_code"].to_numpy()[rows]
    starts = np.flatnonzero(np.r_[True, groups[1:] != groups[:-1]])
    wanted = np.searchsorted(starts, np.arange(ROWS_PER_BATCH, len(rows), ROWS_PER_BATCH))
    batches = np.split(rows, np.unique(starts[wanted[wanted < len(starts)]]))
    found = []
    with torch.no_grad():
        for batch in load_batches(stored, lambda: iter([b for b in batches if len(b)])):
            named = model.embeddings(views(to_device(batch, torch.device(device)), None))
            parts = [named[JOINT]] if JOINT in named else [named[modality] for modality in stored.modalities]
            found.append(torch.cat(parts, dim=1).float().cpu().numpy())
    return np.concatenate(found)
