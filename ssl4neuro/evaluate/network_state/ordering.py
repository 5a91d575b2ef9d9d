"""Pair-ordering accuracy: in how many subjects does the later scan get the higher score (network_state.md §6)."""

from typing import NamedTuple

import pandas as pd
from scipy import stats

from ssl4neuro.evaluate.network_state.cells import Cells


class Ordering(NamedTuple):
    """P(later > earlier) over subjects with both states; ties count half."""

    value: float
    low: float  # Clopper and Pearson's 95 % interval
    high: float
    n_subjects: int


def differences(cells: Cells) -> pd.Series:
    """Mean calibrated logit of the later scans minus that of the earlier ones, mean over repeats; subjects with both states."""
    table = pd.DataFrame({"subject": cells.scans["subject"], "y": cells.y, "logit": cells.logit.mean(1)})
    wide = table.pivot_table(index="subject", columns="y", values="logit").reindex(columns=[0, 1]).dropna()
    return wide[1] - wide[0]


def pair_ordering(cells: Cells) -> Ordering:
    """Share with its exact binomial interval, given the models; NaN without a subject that has both states."""
    found = differences(cells).to_numpy()
    if not len(found):
        return Ordering(float("nan"), float("nan"), float("nan"), 0)
    hits = float((found > 0).sum() + 0.5 * (found == 0).sum())
    low, high = clopper_pearson(hits, len(found))
    return Ordering(hits / len(found), low, high, len(found))


def clopper_pearson(hits: float | int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a proportion (Biometrika 26, 1934)."""
    tail = (1 - level) / 2
    low = 0.0 if hits <= 0 else float(stats.beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits >= trials else float(stats.beta.ppf(1 - tail, hits + 1, trials - hits))
    return low, high
