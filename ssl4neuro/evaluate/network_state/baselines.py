"""What stage two has to beat in the same fold without an encoder: the compact features, and templates with band powers."""

import numpy as np
import pandas as pd
from jaxtyping import Float

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.evaluate.connectivity import sample_bands
from ssl4neuro.evaluate.features import Features, MapRows, Pair, Rows
from ssl4neuro.evaluate.network_state.compact import Compact, StageTwoFeatures

COMPACT, TEMPLATE = "compact features", "template + band power"


def baseline_features(
    cohort: Cohort, items: pd.DataFrame, compact: Compact, components: int, fitted: str
) -> dict[str, Features]:
    """By name; those that the cohort's modalities allow."""
    networks = items["network"].to_numpy(dtype=str)
    found: dict[str, Features] = {
        COMPACT: StageTwoFeatures(
            compact, networks, components=components, fitted="shared" if fitted == "shared" else "per network"
        )
    }
    if {"map", "course"} <= set(cohort.modalities):
        found[TEMPLATE] = TemplateBands(cohort, items)
    return found


class TemplateBands:
    """Correlation of each map with every network's mean training map, and the band powers of the course; standardised.

    Templates mix both states, so that a training map's own part in its template says nothing about its state.
    """

    def __init__(self, cohort: Cohort, items: pd.DataFrame) -> None:
        rows = items["row"].to_numpy(dtype=np.int64)
        self.maps, self.networks = MapRows(cohort, rows), items["network"].to_numpy(dtype=str)
        self.bands = sample_bands(cohort, rows)

    def fold(self, train: Rows, test: Rows) -> Pair:
        """Templates, means and spreads come from the training rows alone."""
        maps, maps_test = (_unit(part) for part in self.maps.fold(train, test))
        own = self.networks[train]
        templates = _unit(np.stack([maps[own == name].mean(0) for name in np.unique(own)]))
        left = np.column_stack([maps @ templates.T, self.bands[train]])
        right = np.column_stack([maps_test @ templates.T, self.bands[test]])
        spread = left.std(0)
        scale = np.where(spread > 1e-7, np.sqrt(left.shape[1]) * np.maximum(spread, 1e-7), np.inf)
        return (left - left.mean(0)) / scale, (right - left.mean(0)) / scale


def _unit(maps: Float[np.ndarray, "n voxels"]) -> Float[np.ndarray, "n voxels"]:
    centred = maps - maps.mean(1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
