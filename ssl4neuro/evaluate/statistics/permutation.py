"""p-values by exchanging labels between or within subjects.

Labels change place *between subjects* when every row of a subject has the same label, and *within subjects* (between their
scans) otherwise. scikit-learn's `permutation_test_score(groups=)` always does the latter and returns p = 1 for one label
per subject (its issue 21543).
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from ssl4neuro.errors import UserError

Scheme = Literal["between subjects", "within subjects", "within scans"]


def constant_within(values: Shaped[np.ndarray, "rows"], groups: Int[np.ndarray, "rows"]) -> Bool[np.ndarray, "groups"]:
    """For each group, in order of its code: do all of its rows have the same value?"""
    _, code = np.unique(values, return_inverse=True)
    order = np.lexsort((code, groups))
    ordered, group = code[order], groups[order]
    _, start = np.unique(group, return_index=True)
    return np.minimum.reduceat(ordered, start) == np.maximum.reduceat(ordered, start)


def permutation_scheme(
    values: Shaped[np.ndarray, "rows"], subjects: Int[np.ndarray, "rows"], scans: Int[np.ndarray, "rows"]
) -> Scheme:
    """How labels may change places when they mean nothing, from the level at which they vary.

    Constant in every subject: between subjects. Varying in at least half of them: within subjects, a scan's rows
    together; or, where rows of one scan differ (component labels), within scans. Few varying subjects: between subjects
    of equal layout, because permuting within a handful of them could never be significant.
    """
    if constant_within(values, subjects).mean() > 0.5:
        return "between subjects"
    return "within subjects" if constant_within(values, scans).mean() > 0.5 else "within scans"


def permuted_labels(
    values: Shaped[np.ndarray, "rows"],
    subjects: Int[np.ndarray, "rows"],
    scans: Int[np.ndarray, "rows"],
    scheme: Scheme,
    permutations: int,
    seed: int,
    blocks: Int[np.ndarray, "rows"] | None = None,
) -> Shaped[np.ndarray, "rows permutations"]:
    """Columns of labels, equally likely under the null hypothesis that they are unrelated to the features.

    `blocks` (sites, constant within a subject) confine an exchange between subjects to subjects of one block.

    Raises:
        UserError: nothing can change places, so that no p-value exists.
    """
    rng = np.random.default_rng([seed, 0x9E27])
    moves = _moves(values, subjects, scans, scheme, blocks)
    if not moves:
        raise UserError(f"permutations: no two labels can change places {scheme}; use more subjects or --permutations 0")
    source = np.tile(np.arange(len(values))[:, None], (1, permutations))
    for members in moves:  # [units, rows of a unit]: units change places as wholes
        order = rng.permuted(np.tile(np.arange(len(members))[:, None], (1, permutations)), axis=0)
        for position in range(members.shape[1]):
            source[members[:, position]] = members[order, position]
    return values[source]


def _moves(
    values: np.ndarray, subjects: np.ndarray, scans: np.ndarray, scheme: Scheme, blocks: np.ndarray | None
) -> list[np.ndarray]:
    """Sets of exchangeable units, each as an index array [units, rows per unit]."""
    unit, pool = {
        "between subjects": (subjects, np.zeros_like(subjects) if blocks is None else blocks),
        "within subjects": (scans, subjects),
        "within scans": (np.arange(len(values)), scans),
    }[scheme]
    rows_of = _rows_by(unit)
    uniform = bool(constant_within(values, unit).all())
    pools: dict[tuple[int, int], list[np.ndarray]] = {}
    for rows in rows_of:
        # Where a unit's rows share one label, units of different size may exchange it: one row stands for all.
        pools.setdefault((int(pool[rows[0]]), 0 if uniform else len(rows)), []).append(rows)
    moves = []
    for units in pools.values():
        labels = values[np.concatenate(units)]
        if len(units) > 1 and (labels != labels[0]).any():
            longest = max(len(rows) for rows in units)
            moves.append(np.stack([np.resize(rows, longest) for rows in units]))
    return moves


def _rows_by(unit: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(unit, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(unit[order])) + 1)


def p_value(observed: float, null: Float[np.ndarray, "permutations"], higher_is_better: bool = True) -> float:
    """One-sided permutation p-value (1 + #as extreme) / (1 + #permutations); never 0 (Phipson and Smyth 2010)."""
    if not np.isfinite(observed) or not len(null):
        return float("nan")
    null = null[np.isfinite(null)]
    slack = 1e-9 * max(1.0, abs(observed))  # equal arrangements must count as equal in spite of rounding
    extreme = null >= observed - slack if higher_is_better else null <= observed + slack
    return float((1 + extreme.sum()) / (1 + len(null)))
