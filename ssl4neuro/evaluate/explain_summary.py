"""From values per row to values per group of rows, with intervals over subjects; and the comparison with random weights."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Shaped

from ssl4neuro.evaluate.explain_model import Explanation
from ssl4neuro.evaluate.explain_target import EVERY, Question
from ssl4neuro.evaluate.statistics import bootstrap_weights, expanded_tail
from ssl4neuro.explain import ALIKE, rank_correlation

DRAWS, FLIPS = 2000, 5000
INTERVALS = ["value", "ci_low", "ci_high", "p_corrected", "n_subjects"]


class Rows(NamedTuple):
    """What is known of the explained rows, in the order of an `Explanation`."""

    subjects: Shaped[np.ndarray, "rows"]
    groups: Shaped[np.ndarray, "rows"]
    classes: Shaped[np.ndarray, "rows"]

    def take(self, where: np.ndarray) -> "Rows":
        """Some of them."""
        return Rows(*(column[where] for column in self))


def rows_of(question: Question, where: np.ndarray) -> Rows:
    """The explained rows of a question; `where` are positions in it."""
    return Rows(question.subjects[where], question.groups[where], question.classes[where])


class Cells(NamedTuple):
    """Means over the rows of one subject and class: subjects count alike however many components or clips they have."""

    values: Float[np.ndarray, "cells parts"]
    subject: Shaped[np.ndarray, "cells"]
    kind: Shaped[np.ndarray, "cells"]  # class


def cells(values: Float[np.ndarray, "rows parts"], rows: Rows) -> Cells:
    """NaN where no row of the cell has the part."""
    means = pd.DataFrame(values).groupby([rows.subjects.astype(str), rows.classes.astype(str)], sort=True).mean()
    subject, kind = (np.array(names) for names in zip(*means.index, strict=True))
    return Cells(means.to_numpy(np.float64), subject, kind)


def mean_change(found: Cells, weights: Float[np.ndarray, "draws cells"]) -> Float[np.ndarray, "draws parts"]:
    """Mean over classes of the means over their subjects.

    Classes count alike: what moves the score of everybody up, as any change of the input's distribution may, then cancels.
    """
    there = np.isfinite(found.values)
    filled = np.where(there, found.values, 0.0)
    parts = []
    for name in np.unique(found.kind):
        own = weights * (found.kind == name)
        count = own @ there
        parts.append(np.divide(own @ filled, count, out=np.full(count.shape, np.nan), where=count > 0))
    return np.mean(parts, axis=0)


def summarise(values: Float[np.ndarray, "rows parts"], rows: Rows, *, signed: bool, seed: int = 0) -> pd.DataFrame:
    """One line per part: mean change with its 95 % interval (subject bootstrap, each part by itself), p_corrected, n_subjects.

    `p_corrected` is that of the largest |t| over all parts when each subject's changes are turned around at random, so that
    it holds for the whole family of parts; it exists for changes that may go both ways (`signed`) and for at least five
    subjects who all have every class.
    """
    found = cells(values, rows)
    mean = mean_change(found, np.ones((1, len(found.subject))))[0]
    low, high = _interval(found, seed)
    p = _flips(found, seed) if signed else np.full(values.shape[1], np.nan)
    counts = [len(np.unique(found.subject[np.isfinite(part)])) for part in found.values.T]
    return pd.DataFrame(dict(zip(INTERVALS, (mean, low, high, p, counts), strict=True)))


def _interval(found: Cells, seed: int) -> tuple[np.ndarray, np.ndarray]:
    codes, subject = np.unique(found.subject, return_inverse=True)
    kinds = np.unique(found.kind, return_inverse=True)[1]
    alone = len(codes) == len(found.subject)  # one class per subject: draw within each, so that no resample lacks one
    smallest = int(np.bincount(kinds).min()) if alone else len(codes)
    if smallest < 2:
        nothing = np.full(found.values.shape[1], np.nan)
        return nothing, nothing
    blocks = bootstrap_weights(subject, kinds if alone else None, DRAWS, seed)
    drawn = np.concatenate([mean_change(found, block) for block in blocks])
    tail = expanded_tail(smallest)
    with np.errstate(invalid="ignore"):
        low, high = np.nanquantile(drawn, [tail, 1 - tail], axis=0)
    return low, high


def _flips(found: Cells, seed: int) -> Float[np.ndarray, "parts"]:
    people = pd.DataFrame(found.values).groupby(found.subject).mean()
    whole = pd.Series(found.kind).groupby(found.subject).nunique() == len(np.unique(found.kind))
    own = people.to_numpy(np.float64)
    fine = np.isfinite(found.values).all(0)  # bands above somebody's Nyquist frequency are left out
    p = np.full(own.shape[1], np.nan)
    if not whole.all() or len(own) < 5 or not fine.any():
        return p
    x = own[:, fine]
    signs = np.random.default_rng([seed, 0xF11B]).choice([-1.0, 1.0], size=(FLIPS, len(x)))
    observed, flipped = _t(np.ones((1, len(x))), x)[0], _t(signs, x).max(1)
    p[fine] = (1 + (flipped[:, None] >= observed - 1e-9).sum(0)) / (1 + FLIPS)
    return p


def _t(signs: Float[np.ndarray, "flips subjects"], x: Float[np.ndarray, "subjects parts"]) -> Float[np.ndarray, "flips parts"]:
    """|t| of the mean; turning signs leaves the sum of squares as it is."""
    n = len(x)
    mean = signs @ x / n
    variance = np.maximum((x**2).mean(0) - mean**2, 1e-30) * n / (n - 1)
    return np.abs(mean) / np.sqrt(variance / n)


def part_table(found: Explanation, kind: str, rows: Rows, *, signed: bool, seed: int = 0) -> pd.DataFrame:
    """Every group and part: modality, network, what the part is, and `summarise`."""
    tables = []
    for group in np.unique(rows.groups):
        own = rows.groups == group
        table = summarise(found.changes[kind][own], rows.take(own), signed=signed, seed=seed)
        parts = found.parts[kind].reset_index(drop=True)
        labels = pd.DataFrame({"modality": found.modality, "network": group}, index=parts.index)
        tables.append(pd.concat([labels, parts, table], axis=1))
    return pd.concat(tables, ignore_index=True)


def mean_cams(found: Explanation, rows: Rows) -> dict[tuple[str, str], np.ndarray]:
    """Mean map over subjects by (network, class), and (network, `all`) over the classes. Maps must be of one shape."""
    means = {}
    flat = np.stack([cam.ravel() for cam in found.cams])
    shape = found.cams[0].shape
    for group in np.unique(rows.groups):
        own = rows.groups == group
        by = cells(flat[own], rows.take(own))
        names: Sequence[str] = np.unique(by.kind).tolist()
        for name in names:
            means[str(group), name] = by.values[by.kind == name].mean(0).reshape(shape)
        means[str(group), EVERY] = mean_change(by, np.ones((1, len(by.subject))))[0].reshape(shape)
    return means


def compare(trained: Explanation, random: Explanation, rows: Rows) -> pd.DataFrame:
    """Rank correlation of explanations by trained and by random weights: of the means over subjects, and sample by sample."""
    lines = []
    pairs = {f"occlusion by {kind}": (trained.changes[kind], random.changes[kind]) for kind in trained.changes}
    for group in np.unique(rows.groups):
        own = np.flatnonzero(rows.groups == group)
        part = rows.take(own)
        for method, both in pairs.items():
            means = [mean_change(c, np.ones((1, len(c.subject)))) for c in (cells(v[own], part) for v in both)]
            lines.append(_line(trained, method, group, part, means, [v[own] for v in both]))
        if trained.cams:
            both_cams = [[e.cams[i].ravel() for i in own] for e in (trained, random)]
            alone = [rank_correlation(a[None], b[None])[0] for a, b in zip(*both_cams, strict=True)]
            line = _line(trained, "eigencam", group, part, None, None)
            line["spearman_samples"] = float(np.nanmean(alone)) if np.isfinite(alone).any() else np.nan
            if len({len(cam) for cam in both_cams[0]}) == 1 and trained.modality != "course":
                stacked = [cells(np.stack(cams), part) for cams in both_cams]
                means = [mean_change(c, np.ones((1, len(c.subject)))) for c in stacked]
                line["spearman"] = float(rank_correlation(*means)[0])
            lines.append(line)
    return pd.DataFrame(lines)


def _line(
    trained: Explanation, method: str, group: str, rows: Rows, means: list[np.ndarray] | None, samples: list[np.ndarray] | None
) -> dict[str, object]:
    mean = float(rank_correlation(*means)[0]) if means else np.nan
    each = rank_correlation(*samples) if samples else np.array([np.nan])
    return {
        "modality": trained.modality,
        "method": method,
        "network": group,
        "spearman": mean,
        "spearman_samples": float(np.nanmean(each)) if np.isfinite(each).any() else np.nan,
        "n_subjects": len(np.unique(rows.subjects)),
    }


def verdicts(comparisons: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Mean over the random networks, and whether the explanation is alike with trained and random weights (above 0.9)."""
    keys = ["modality", "method", "network"]
    table = pd.concat(comparisons).groupby(keys, sort=False).mean(numeric_only=True).reset_index()
    table["n_subjects"] = table["n_subjects"].astype(int)
    table["randomisations"] = len(comparisons)
    table["alike"] = table[["spearman", "spearman_samples"]].max(axis=1) > ALIKE
    return table
