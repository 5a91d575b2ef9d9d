"""Every metric of every model and network, with what is needed to read it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ssl4neuro.evaluate.network_state.cells import Cells, make_cells
from ssl4neuro.evaluate.network_state.items import WHOLE
from ssl4neuro.evaluate.network_state.metrics import METRICS
from ssl4neuro.evaluate.network_state.ordering import pair_ordering
from ssl4neuro.evaluate.network_state.swap import holm, swap_p
from ssl4neuro.evaluate.statistics import bootstrap_interval

ORDERING = "pair ordering"


@dataclass(frozen=True)
class Row:
    """One number. `p` is of the AUC (see `swap`), `p_corrected` is Holm's over the networks of one model."""

    network: str
    model: str
    baseline: bool
    metric: str
    value: float
    ci_low: float
    ci_high: float
    p: float | None
    p_corrected: float | None
    chance: float | None
    n_subjects: int
    n_samples: int
    unit: str  # what one prediction is about


def model_rows(
    model: str,
    cells: Mapping[str, Cells],
    *,
    baseline: bool,
    p: Mapping[str, float | None],
    bootstrap: int,
    seed: int,
) -> list[Row]:
    """Rows of one model, the whole brain last.

    Args:
        cells: by network.
        p: of the AUC, by network.
    """
    corrected = holm({name: value for name, value in p.items() if name != WHOLE})
    rows = []
    for network in sorted(cells, key=lambda name: (name == WHOLE, name)):
        own = cells[network]
        size = (len(np.unique(own.subject)), len(own.y), "scan" if network == WHOLE else "network of a scan")
        for name, metric in METRICS.items():
            found = bootstrap_interval(
                lambda w, f=metric.function, c=own: f(c, w),  # type: ignore[misc]
                own.subject, draws=bootstrap, seed=seed, bounded=metric.bounded,
            )  # fmt: skip
            tested = (p.get(network), corrected.get(network)) if name == "AUC" else (None, None)
            head = (network, model, baseline, name, found.value, found.low, found.high, *tested, metric.chance)
            rows.append(Row(*head, *size))
        order = pair_ordering(own)
        head = (network, model, baseline, ORDERING, order.value, order.low, order.high, None, None, 0.5)
        rows.append(Row(*head, order.n_subjects, order.n_subjects, "subject"))
    return rows


def cells_of(scores: pd.DataFrame, after: str) -> dict[str, dict[str, Cells]]:
    """By model and network, in the order of the table."""
    found: dict[str, dict[str, Cells]] = {}
    for (model, network), own in scores.groupby(["model", "network"], sort=False):
        found.setdefault(str(model), {})[str(network)] = make_cells(own, after)
    return found


def swap_ps(cells: Mapping[str, Cells], permutations: int, seed: int) -> dict[str, float | None]:
    """The permutation p of every network; all networks see the same exchanges."""
    return {network: swap_p(own, permutations, seed) for network, own in cells.items()}
