"""How many labelled subjects does an embedding need? The probe trained on 1 % to 100 % of the training subjects.

In every fold of the first repeat the training subjects are put into a random order, several times; a fraction takes the first
of them, so smaller sets lie inside larger ones, and all embeddings and baselines see the same sets. The test folds are
those of the main result at every fraction. Everything fitted (scaling, penalty, PCA, harmonisation) is fitted on the smaller
set.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.crossval import Candidate, Settings, held_out, make_folds
from ssl4neuro.evaluate.folds import Fold
from ssl4neuro.evaluate.metrics import METRICS
from ssl4neuro.evaluate.problem import Problem
from ssl4neuro.progress import progress

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
DRAWS = 10
COLUMNS = ("model", "baseline", "fraction", "n_train_subjects", "repeat", "metric", "value")


def label_efficiency(
    problem: Problem,
    candidates: Sequence[Candidate],
    settings: Settings,
    fractions: Sequence[float] = FRACTIONS,
    draws: int = DRAWS,
    *,
    show: bool = False,
) -> pd.DataFrame:
    """One line per model, fraction, draw and metric; `n_train_subjects` is the mean over folds, rounded.

    The majority class is left out: it does not learn. Fractions that come to the same subjects as a smaller one (1 % and 2 %
    of 30) are done once, and so is the whole set.

    Raises:
        UserError: a fraction outside 0 to 1, or no draw.
    """
    wanted = sorted({*fractions, 1.0})
    if wanted[0] <= 0 or wanted[-1] > 1:
        raise UserError(f"label-efficiency: fractions go from above 0 to 1, got {', '.join(f'{f:g}' for f in fractions)}")
    if draws < 1:
        raise UserError(f"label-efficiency: at least one draw is needed, got {draws}")
    folds = make_folds(problem, settings)[0]
    sets = [_subsets(problem, folds, wanted, np.random.default_rng([settings.seed, 0x1ABE, i])) for i in range(draws)]
    tasks = [(fraction, i, subset) for i, drawn in enumerate(sets) for fraction, subset in drawn if fraction < 1 or i == 0]
    lines: list[dict[str, Any]] = []
    with progress("label efficiency", len(tasks), "training set", show=show) as bar:
        for fraction, draw, subset in tasks:
            size = round(float(np.mean([len(np.unique(problem.subjects[fold.train])) for fold in subset])))
            for candidate in candidates:
                if candidate.informative:
                    for name, value in _values(problem, candidate, subset, settings.seed).items():
                        line = (candidate.name, candidate.baseline, fraction, size, draw, name, value)
                        lines.append(dict(zip(COLUMNS, line, strict=True)))
            bar.advance()
    return pd.DataFrame(lines, columns=list(COLUMNS)).sort_values(["fraction", "repeat"], kind="stable", ignore_index=True)


def _values(problem: Problem, candidate: Candidate, folds: list[Fold], seed: int) -> dict[str, float]:
    """Metrics of the pooled held-out predictions; NaN where so few subjects do not suffice (a site to harmonise is missing)."""
    try:
        held = held_out(problem, candidate, folds, seed)
    except UserError:
        return dict.fromkeys(METRICS[problem.task], float("nan"))
    ones = np.ones((1, len(held.truth)))
    return {name: float(metric.function(held, ones)[0]) for name, metric in METRICS[problem.task].items()}


def _subsets(
    problem: Problem, folds: Sequence[Fold], fractions: Sequence[float], rng: np.random.Generator
) -> list[tuple[float, list[Fold]]]:
    """Nested training sets in every fold, one per fraction whose size is a new one."""
    orders = [subject_order(problem, fold.train, rng) for fold in folds]
    found, sizes_before = [], None
    for fraction in fractions:
        sizes = [min(len(order), max(least, round(fraction * len(order)))) for order, least in orders]
        if sizes != sizes_before:
            rows = [
                f.train[np.isin(problem.subjects[f.train], o[:n])] for f, (o, _), n in zip(folds, orders, sizes, strict=True)
            ]
            found.append((fraction, [Fold(train, fold.test) for train, fold in zip(rows, folds, strict=True)]))
        elif fraction == 1.0:
            found[-1] = (1.0, found[-1][1])
        sizes_before = sizes
    return found


def subject_order(
    problem: Problem, train: Int[np.ndarray, "train"], rng: np.random.Generator
) -> tuple[Int[np.ndarray, "subjects"], int]:
    """Training subjects in random order, and how many of them a set must have at least.

    The first have one of every class between them; after them the classes of subjects follow each other in proportion.
    """
    subjects = np.unique(problem.subjects[train])
    order = rng.permutation(subjects)
    if not problem.classes:
        return order, min(2, len(order))
    if problem.subject_level:
        label = dict(zip(problem.subjects[train].tolist(), problem.y[train].tolist(), strict=True))
        kinds = pd.Series([label[s] for s in order.tolist()])
        place = (kinds.groupby(kinds).cumcount() + rng.random(len(order))) / kinds.groupby(kinds).transform("size")
        order = order[np.argsort(place.to_numpy(), kind="stable")]
    first: list[int] = []
    lacking = set(np.unique(problem.y[train]).tolist())
    for subject in order.tolist():
        has = set(problem.y[train][problem.subjects[train] == subject].tolist())
        if lacking & has:
            first.append(subject)
            lacking -= has
    rest = order[~np.isin(order, first)]
    return np.concatenate([np.array(first, dtype=order.dtype), rest]), min(max(2, len(first)), len(order))


def summary(table: pd.DataFrame, metric: str) -> str:
    """`label efficiency (AUC, mean of 10 draws): joint 0.61 with 4, 0.72 with 12, 0.81 with 48 training subjects; ...`"""
    own = table[(table["metric"] == metric) & table["value"].notna()]
    parts = []
    for model, lines in own.groupby("model", sort=False):
        means = lines.groupby("n_train_subjects")["value"].mean()
        shown = means.iloc[sorted({0, len(means) // 2, len(means) - 1})]
        parts.append(f"{model} " + ", ".join(f"{value:.3f} with {n}" for n, value in shown.items()))
    draws = int(own["repeat"].max()) + 1
    return f"label efficiency ({metric}, mean of {draws} draws of training subjects): " + "; ".join(parts)
