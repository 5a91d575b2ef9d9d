"""The rows of a network-state study: components that have a network, from scans that have a state."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.features import NUISANCE_COLUMNS
from ssl4neuro.registry import suggest

WHOLE = "whole brain"  # stands in the place of a network where a score is of the whole scan
IDENTITY = ["subject", "session", "run", "site", "network", "component"]
SCAN = ["subject", "session", "run"]
SCAN_NUISANCES = (*NUISANCE_COLUMNS, "scanner", "tr")
COUNT = "n_components"


def study_items(
    cohort: Cohort, *, state: str = "state", before: str = "pre", after: str = "post", networks: Sequence[str] = ()
) -> pd.DataFrame:
    """One line per component, in the order of the cohort.

    Args:
        state: label column of the scans.
        before, after: its two values; scans with another or none take no part.
        networks: those studied; empty for every named one that occurs in both states.

    Returns:
        Columns row (of the cohort), subject, session, run, site, network, component, state, y (0 before, 1 after).

    Raises:
        UserError: no such column, no scan of a state, no component with a network, or a network that does not exist.
    """
    index = cohort.index
    states = np.array([None if v is None else str(v) for v in cohort.labels(state)], dtype=object)
    for value in (before, after):
        if not (states == value).any():
            found = sorted({s for s in states if s is not None})
            told = ", ".join(found[:5]) or "nothing"
            raise UserError(f"{cohort.path}: column '{state}' has no '{value}' (it has {told}); name its two values")
    items = index[IDENTITY].assign(row=np.arange(len(index)), state=states)
    items = items[np.isin(states, [before, after]) & (index["network"].to_numpy() != "")]
    both = [name for name, own in items.groupby("network") if own["state"].nunique() == 2]
    if not both:
        raise UserError(f"{cohort.path}: no network has components in both states; label them, or prepare with --templates")
    for name in networks:
        if name not in both:
            raise UserError(f"networks: no '{name}' in both states in {cohort.path}{suggest(name, map(str, both))}")
    items = items[items["network"].isin(networks or both)].reset_index(drop=True)
    return items[["row", *IDENTITY, "state"]].assign(y=(items["state"] == after).to_numpy().astype(np.int64))


def scan_codes(items: pd.DataFrame) -> Int[np.ndarray, "items"]:
    """A code per scan, in order of first appearance."""
    return items.groupby(SCAN, sort=False).ngroup().to_numpy(dtype=np.int64)


def scan_table(cohort: Cohort, items: pd.DataFrame) -> pd.DataFrame:
    """One line per scan: who and when, state, y, and every nuisance variable that there is.

    Those are age, sex, mean framewise displacement (mm), tSNR, number of volumes, repetition time (s), site and scanner, from
    the rows, sessions.tsv or participants.tsv, and `n_components`, the number of components of the scan with and without a
    name.
    """
    first = items.groupby(SCAN, sort=False, as_index=False).first()
    scans = first[[*SCAN, "site", "state", "y"]]
    known = {*cohort.row_columns, *cohort.sessions.columns, *cohort.participants.columns}
    rows = first["row"].to_numpy()
    extra = {}
    for column in SCAN_NUISANCES:
        if column in known and column not in scans:
            values = pd.Series(cohort.labels(column)[rows])
            numbers = pd.to_numeric(values, errors="coerce")
            extra[column] = numbers if numbers.notna().sum() == values.notna().sum() else values.astype(object)
    if COUNT in known:  # the cohort holds only some of what the decomposition found, and says how many there were
        extra[COUNT] = pd.to_numeric(pd.Series(cohort.labels(COUNT)[rows]))
    else:
        group = cohort.index["group_code"].to_numpy()
        extra[COUNT] = pd.Series(np.bincount(group)[group[rows]])
    return scans.assign(**{name: values.to_numpy() for name, values in extra.items()})
