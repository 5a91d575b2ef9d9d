"""How far the study's model is ahead of the others in AUC: paired, for all score the same scans (network_state.md §6)."""

from collections.abc import Mapping

import pandas as pd

from ssl4neuro.evaluate.network_state.cells import Cells
from ssl4neuro.evaluate.network_state.items import SCAN, WHOLE
from ssl4neuro.evaluate.network_state.nuisance import MAJORITY, auc_difference
from ssl4neuro.evaluate.statistics import bootstrap_interval

COLUMNS = ["network", "model", "other", "baseline", "value", "ci_low", "ci_high", "n_subjects"]


def auc_differences(
    found: Mapping[str, Mapping[str, Cells]], model: str, baseline: Mapping[str, bool], *, draws: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """AUC of `model` minus that of every other model, per network, the whole brain last.

    Two intervals that overlap say little of a difference between models of the same subjects; this one is of the difference.

    Args:
        found: cells by model and network.
        model: the study's own.
        baseline: by model.

    Returns:
        network, model, other, baseline (whether `other` is one), value, its 95 % interval by a bootstrap of subjects with the
        models fixed, n_subjects. Without the majority, whose AUC is 0.5 by definition, and networks of other scans.
    """
    lines = []
    for other, cells in found.items():
        if other in (model, MAJORITY):
            continue
        for network in sorted(cells, key=lambda name: (name == WHOLE, name)):
            own, theirs = found[model].get(network), cells[network]
            if own is None or not own.scans[SCAN].equals(theirs.scans[SCAN]):
                continue
            gain = bootstrap_interval(
                lambda w, a=own, b=theirs: auc_difference(a, b, w),  # type: ignore[misc]
                own.subject, draws=draws, seed=seed,
            )  # fmt: skip
            size = own.scans["subject"].nunique()
            lines.append((network, model, other, baseline[other], gain.value, gain.low, gain.high, size))
    return pd.DataFrame(lines, columns=COLUMNS)
