"""Nothing about the training rows, and nothing about one test row, may change when (other) test rows change.

A scaler, a PCA, a harmonisation or a choice of features that has seen the test rows breaks this, wherever in the code
it happens; so the same few lines find every leak of that kind. For users' own `Features` and `Probe` classes as for ours.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.protocol import Probe

TOLERANCE = 1e-5  # of the largest value: what another order of floating point sums may do


def fold_invariance(
    make: Callable[..., Any], *data: Any, train: Int[np.ndarray, "_"], test: Int[np.ndarray, "_"], seed: int = 0
) -> Check:
    """Do features that `make(*data)` fits depend on rows that are only tested?

    Args:
        make: class, or function that returns an object with `fold(train, test)`.
        data: arrays, tables or lists with one entry per row; everything that the features are made of, labels included.
        train, test: rows of a fold.

    Returns:
        A check with what changed, and by how much.
    """
    name = f"{_name(make)} fits on training rows alone"
    before, tested = make(*data).fold(train, test)
    after, _ = make(*with_other_rows(data, test, seed)).fold(train, test)
    keep, change = test[: (len(test) + 1) // 2], test[(len(test) + 1) // 2 :]
    _, own = make(*with_other_rows(data, change, seed)).fold(train, test)
    moved = {
        "training rows": difference(before, after),
        "test rows": difference(tested[: len(keep)], own[: len(keep)]),
    }
    return _verdict(name, moved, "the values of (other) test rows")


def probe_invariance(
    probe: Probe, *, rows: int = 60, dim: int = 12, task: Task = "binary", classes: int = 2, labels: int = 3, seed: int = 0
) -> Check:
    """Do a probe's scores of one test row depend on the other test rows, or its label columns on each other?

    On made-up data: 2/3 of the rows train, two rows per subject.

    Args:
        labels: columns of labels that are fitted together.
    """
    rng = np.random.default_rng([seed, 0x1AE])
    x = rng.normal(size=(rows, dim)).astype(np.float32)
    y = rng.normal(size=(rows, labels)) if task == "regression" else rng.integers(0, classes, size=(rows, labels)).astype(float)
    cut = rows * 2 // 3
    keep = (rows - cut) // 2
    groups, other = np.arange(cut) // 2, x[cut:].copy()
    other[keep:] = 5 * rng.normal(size=other[keep:].shape) + 3

    def scores(test: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        made = probe.prepare(x[:cut], test, groups, task, classes if task != "regression" else 0, seed)(columns)
        return made.values, made.offset

    values, offset = scores(x[cut:], y[:cut])
    values_other, offset_other = scores(other, y[:cut])
    values_one, _ = scores(x[cut:], y[:cut, :1])
    moved = {
        "scores of unchanged test rows": difference(values[:keep], values_other[:keep]),
        "intercepts": difference(offset, offset_other),
        "scores under one column of labels": difference(values[:, :1], values_one, 1e-3),
    }
    return _verdict(f"{type(probe).__name__} fits on training rows alone", moved, "other test rows or label columns")


def label_invariance(
    scores: Callable[[np.ndarray], np.ndarray],
    y: np.ndarray,
    test: Int[np.ndarray, "_"],
    *,
    name: str = "evaluation",
    seed: int = 0,
) -> Check:
    """Do the held-out scores of a fold depend on the labels of its test rows?

    They do where a threshold, a penalty, an epoch or a set of features was chosen on them.

    Args:
        scores: labels of all rows -> scores of the test rows; fits, chooses and predicts.
        y: true labels.
        test: rows that the scores are of.
    """
    rng = np.random.default_rng([seed, 0x7AB])
    other = y.copy()
    values = np.unique(y)
    other[test] = (
        values[(np.searchsorted(values, y[test]) + 1) % len(values)] if len(values) <= len(y) / 4 else rng.permutation(y[test])
    )
    return _verdict(
        f"{name} chooses on training labels alone", {"held-out scores": difference(scores(y), scores(other))}, "test labels"
    )


def with_other_rows(data: Sequence[Any], rows: np.ndarray, seed: int) -> list[Any]:
    """The same data with these rows replaced: numbers by others of ten times the spread, words and codes by each other."""
    return [_replaced(part, rows, np.random.default_rng([seed, i])) for i, part in enumerate(data)]


def difference(a: np.ndarray, b: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """Largest difference relative to the largest value; 0 within the tolerance."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape:
        return float("inf")
    if not a.size:
        return 0.0
    apart = float(np.nan_to_num(np.abs(a - b), nan=0.0).max()) / max(float(np.nan_to_num(np.abs(a)).max()), 1e-12)
    return 0.0 if apart <= tolerance else apart


def _replaced(part: Any, rows: np.ndarray, rng: np.random.Generator) -> Any:
    if isinstance(part, pd.DataFrame):
        return pd.DataFrame({c: _replaced(part[c].to_numpy(), rows, rng) for c in part}, index=part.index)
    if isinstance(part, list | tuple):  # arrays of different lengths, or several per row
        ragged = list(part)
        for row in rows:
            old = part[row]
            ragged[row] = [_noise(scan, rng) for scan in old] if isinstance(old, list | tuple) else _noise(old, rng)
        return ragged
    values = np.array(part, copy=True)
    if values.dtype.kind == "f":
        values[rows] = _noise(values[rows], rng)
    else:
        levels = np.unique(values[rows])
        values[rows] = levels[(np.searchsorted(levels, values[rows]) + 1) % len(levels)]
    return values


def _noise(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    spread = 10 * max(float(np.nanstd(values)), 0.1)
    return (np.nanmean(values) + spread * (1 + rng.normal(size=values.shape))).astype(values.dtype)


def _verdict(name: str, moved: dict[str, float], when: str) -> Check:
    changed = [f"{what} change by {size:.1%}" for what, size in moved.items() if size > 0]
    if changed:
        return Check(name, "flagged", f"{' and '.join(changed)} with {when}")
    return Check(name, "passed", f"unchanged under other {'test rows' if 'row' in when else 'test labels'}")


def _name(make: Callable[..., Any]) -> str:
    return getattr(make, "__name__", type(make).__name__)
