"""From logits of components to calibrated probabilities, and to one score of the whole brain for every scan."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.special import expit

from ssl4neuro.evaluate.features import Rows
from ssl4neuro.evaluate.network_state.items import SCAN, WHOLE
from ssl4neuro.evaluate.network_state.platt import Platt, fit_platt

NOBODY = -1  # component of a line that is of a whole scan


def calibrated(
    items: pd.DataFrame,
    test: Rows,
    logit: Float[np.ndarray, "test"],
    held: Sequence[Rows],
    held_logit: Sequence[Float[np.ndarray, "_"]],
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Lines of the held-out components and of their scans, and the calibration.

    A network's calibration is fitted on the cells (means over the components) of the inner splits' held-out subjects. The
    whole-brain logit is the mean of the calibrated logits of a scan's networks, so that a network that says little counts
    little; its own calibration is fitted on the same subjects. Nothing here has seen a held-out subject of the outer fold.

    Returns:
        Identity, `logit` and `probability` of each; without inner splits nothing is calibrated.
    """
    empty = items.iloc[:0].assign(logit=np.zeros(0), split=np.zeros(0, dtype=np.int64))
    inner = [items.iloc[rows].assign(logit=z, split=i) for i, (rows, z) in enumerate(zip(held, held_logit, strict=True))]
    cells = _cells(pd.concat(inner) if inner else empty, "split")
    overall = fit_platt(cells["logit"].to_numpy(), cells["y"].to_numpy())
    platt = {
        str(name): fit_platt(own["logit"].to_numpy(), own["y"].to_numpy(), overall) for name, own in cells.groupby("network")
    }
    whole_inner = _whole(cells, platt, overall, ["split"])
    whole = fit_platt(whole_inner["logit"].to_numpy(), whole_inner["y"].to_numpy())
    lines = items.iloc[test].assign(logit=logit)
    lines["probability"] = expit(_apply(lines, platt, overall))
    scans = _whole(_cells(lines), platt, overall, [])
    scans["probability"] = expit(whole(scans["logit"].to_numpy()))
    table = pd.concat([lines, scans.assign(network=WHOLE, component=NOBODY)], ignore_index=True)
    record = {**{name: list(found) for name, found in platt.items()}, WHOLE: list(whole)}
    return table.drop(columns=["row", "y"]), record


def _cells(lines: pd.DataFrame, *extra: str) -> pd.DataFrame:
    keys = [*extra, *SCAN, "site", "state", "network"]
    return lines.groupby(keys, sort=False, as_index=False).agg(y=("y", "first"), logit=("logit", "mean"))


def _whole(cells: pd.DataFrame, platt: dict[str, Platt], overall: Platt, extra: list[str]) -> pd.DataFrame:
    lines = cells.assign(logit=_apply(cells, platt, overall))
    keys = [*extra, *SCAN, "site", "state"]
    return lines.groupby(keys, sort=False, as_index=False).agg(y=("y", "first"), logit=("logit", "mean"))


def _apply(lines: pd.DataFrame, platt: dict[str, Platt], overall: Platt) -> Float[np.ndarray, "lines"]:
    found = [platt.get(name, overall) for name in lines["network"]]
    slope, intercept = np.array([[p.slope, p.intercept] for p in found]).reshape(-1, 2).T
    return slope * lines["logit"].to_numpy(dtype=np.float64) + intercept
