"""The one evaluation loop: the same outer folds, intervals and permutations for embeddings and baselines alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.column_metrics import HeldColumns, column_metric
from ssl4neuro.evaluate.features import Features
from ssl4neuro.evaluate.folds import Fold, site_folds, subject_folds
from ssl4neuro.evaluate.metrics import METRICS, Held, Metric, confusion
from ssl4neuro.evaluate.patience import Patience
from ssl4neuro.evaluate.predictions import prediction_frame
from ssl4neuro.evaluate.problem import Problem
from ssl4neuro.evaluate.protocol import Apply, Probe
from ssl4neuro.evaluate.statistics import (
    Exchange,
    Interval,
    bootstrap_interval,
    equivalence_p,
    p_value,
    permutation_scheme,
    permuted_labels,
)
from ssl4neuro.progress import progress

NUMBERS_AT_ONCE = 8_000_000


@dataclass(frozen=True)
class Candidate:
    """Something to evaluate: an embedding, or a baseline that it has to beat."""

    name: str
    features: Features
    probe: Probe
    baseline: bool = False
    max_train: int | None = None  # more training rows than this are sampled down, without looking at labels
    informative: bool = True  # the majority class has no p-value


@dataclass(frozen=True)
class Settings:
    """How to evaluate."""

    folds: int = 5
    repeats: int = 1
    permutations: int = 1000
    bootstrap: int = 2000
    seed: int = 0
    leave_site_out: bool = False
    equivalence_margin: float = 0.1  # of AUC and balanced accuracy around chance


@dataclass(frozen=True)
class Row:
    """One number as it leaves the library: with its unit, n, interval, chance level and p."""

    name: str
    baseline: bool
    metric: str
    value: float
    ci_low: float
    ci_high: float
    p: float | None
    chance: float | None
    n_subjects: int
    n_samples: int
    unit: str
    p_corrected: float | None = None  # family-wise over the targets of one run
    p_equivalence: float | None = None  # two one-sided tests against chance ± the equivalence margin


@dataclass(frozen=True)
class Outcome:
    """All numbers of one candidate."""

    rows: tuple[Row, ...]
    predictions: pd.DataFrame
    confusion: list[list[float]] | None  # true class by predicted class, mean over repeats
    tested: Int[np.ndarray, "tested"] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # rows, ascending
    held: tuple[Held, ...] = ()  # of every repeat, in the order of `tested`
    null: dict[str, np.ndarray] = field(default_factory=dict)  # metric -> its value under every permutation


def make_folds(problem: Problem, settings: Settings) -> list[list[Fold]]:
    """Outer folds of every repeat.

    Raises:
        UserError: a training fold lacks a class, or no fold can be made.
    """
    repeats = []
    for repeat in range(1 if settings.leave_site_out else settings.repeats):
        if settings.leave_site_out:
            if problem.sites is None:
                raise UserError("leave-site-out: name the column with --site")
            folds = site_folds(problem.subjects, problem.sites, problem.wall.testable)
        else:
            seed = settings.seed * 1000 + repeat
            folds = subject_folds(problem.subjects, problem.wall.testable, settings.folds, seed, _strata(problem))
        repeats.append(folds)
    for fold in repeats[0]:
        lacking = set(range(len(problem.classes))) - set(problem.y[fold.train].astype(int).tolist())
        if lacking or len(np.unique(problem.y[fold.train])) < 2:
            name = problem.classes[min(lacking)] if lacking else "a second value"
            raise UserError(f"target: a training fold has no '{name}'; use more subjects or other folds")
    if not repeats[0]:
        raise UserError("folds: no site has unseen subjects to test; hold out more subjects in pretraining")
    return repeats


def _strata(problem: Problem) -> np.ndarray | None:
    parts = []
    if problem.classes and problem.subject_level:
        parts.append(problem.y.astype(np.int64))
    if problem.sites is not None:
        first = pd.Series(problem.sites).groupby(problem.subjects).transform("first")
        parts.append(first.to_numpy(dtype=np.int64))
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else parts[0] * (int(parts[1].max()) + 1) + parts[1]


def exchange(problem: Problem) -> Exchange:
    """What may change places if the labels mean nothing: subjects, scans or rows, and among whom."""
    scheme = permutation_scheme(problem.y, problem.subjects, problem.scans)
    unit, pool = {
        "between subjects": (problem.subjects, np.zeros_like(problem.subjects)),
        "within subjects": (problem.scans, problem.subjects),
        "within scans": (np.arange(len(problem.y)), problem.scans),
    }[scheme]
    told: str = scheme
    if scheme == "between subjects":
        # Seen subjects only train. Exchanging labels among the tested alone keeps their class counts, and the power with them.
        pool = problem.wall.testable.astype(np.int64)
        if problem.sites is not None:
            pool = pool + 2 * pd.Series(problem.sites).groupby(problem.subjects).transform("first").to_numpy(dtype=np.int64)
            told += " of the same site"
    return Exchange(told, unit, pool, problem.y)


def null_labels(problem: Problem, settings: Settings) -> tuple[Float[np.ndarray, "rows columns"], str]:
    """True labels in the first column, permuted ones in the others, and how they were permuted."""
    if not settings.permutations:
        return problem.y[:, None], "none"
    scheme = permutation_scheme(problem.y, problem.subjects, problem.scans)
    found = exchange(problem)
    shuffled = permuted_labels(
        problem.y, problem.subjects, problem.scans, scheme, settings.permutations, settings.seed,
        found.pool if scheme == "between subjects" else None,
    )  # fmt: skip
    return np.concatenate([problem.y[:, None], shuffled], axis=1), found.scheme


def evaluate(
    problem: Problem,
    candidates: Sequence[Candidate],
    settings: Settings,
    *,
    labels: tuple[Float[np.ndarray, "rows columns"], str] | None = None,
    show: bool = False,
) -> tuple[list[Outcome], str]:
    """Cross-validate every candidate in the same folds under the same permutations; returns the permutation scheme too.

    Args:
        labels: what `null_labels` would return, where several targets share their permutations.
    """
    repeats = make_folds(problem, settings)
    columns, scheme = labels or null_labels(problem, settings)
    outcomes = []
    with progress("probe", len(candidates), "model", show=show) as bar:
        for candidate in candidates:
            own = columns if candidate.informative else columns[:, :1]
            outcomes.append(
                _evaluate_one(problem, candidate, repeats, own, settings, lambda text: bar.advance(0, permutations=text))
            )
            bar.advance(1)
    return outcomes, scheme


def _evaluate_one(
    problem: Problem, candidate: Candidate, repeats: list[list[Fold]], labels: np.ndarray, settings: Settings,
    tell: Callable[[str], None] = lambda text: None,
) -> Outcome:  # fmt: skip
    prepared = [[_prepare(problem, candidate, fold, settings.seed) for fold in folds] for folds in repeats]
    pairs = list(zip(repeats, prepared, strict=True))
    held = [_held_out(problem, folds, applies, labels[:, :1]).column(0) for folds, applies in pairs]
    null = {name: np.zeros(labels.shape[1] - 1) for name in METRICS[problem.task]}
    patience = Patience(candidate.name, candidate.probe, labels.shape[1] - 1, tell)
    step = patience.at_once(max(1, NUMBERS_AT_ONCE // (len(problem.y) * max(1, len(problem.classes)))))
    for start in range(1, labels.shape[1], step):
        part = labels[:, start : start + step]
        for folds, applies in pairs:
            shuffled = _held_out(problem, folds, applies, part)
            for name, values in null.items():
                values[start - 1 : start - 1 + part.shape[1]] += column_metric(problem.task, name, shuffled) / len(repeats)
        patience.advance(part.shape[1])
    tested = np.sort(_order(repeats[0]))
    # Repeats test the same rows in another order; sorted alike they share the resampled subjects; metrics are averaged.
    order = [np.argsort(_order(folds), kind="stable") for folds in repeats]
    aligned = tuple(_taken(h, o) for h, o in zip(held, order, strict=True))
    tables = None
    if problem.classes:
        ones = np.ones((1, len(tested)))
        tables = np.mean([confusion(h, ones, len(problem.classes))[0] for h in held], axis=0).tolist()
    predictions = pd.concat(
        [
            prediction_frame(problem, candidate.name, i, np.repeat(np.arange(len(f)), [len(k.test) for k in f]), _order(f), h)
            for i, (f, h) in enumerate(zip(repeats, held, strict=True))
        ],
        ignore_index=True,
    )
    rows = tuple(
        _row(problem, candidate, name, metric, aligned, tested, null[name], settings)
        for name, metric in METRICS[problem.task].items()
    )
    return Outcome(rows, predictions, tables, tested, aligned, null)


def _prepare(problem: Problem, candidate: Candidate, fold: Fold, seed: int) -> tuple[np.ndarray, Apply]:
    train = fold.train
    if candidate.max_train is not None and len(train) > candidate.max_train:
        train = np.sort(np.random.default_rng([seed, 0x5AB]).choice(train, candidate.max_train, replace=False))
    x, x_test = candidate.features.fold(train, fold.test)
    return train, candidate.probe.prepare(x, x_test, problem.subjects[train], problem.task, len(problem.classes), seed)


def held_out(problem: Problem, candidate: Candidate, folds: list[Fold], seed: int) -> Held:
    """Pooled held-out predictions of the true labels."""
    prepared = [_prepare(problem, candidate, fold, seed) for fold in folds]
    return _held_out(problem, folds, prepared, problem.y[:, None]).column(0)


def _held_out(problem: Problem, folds: list[Fold], prepared: list[tuple[np.ndarray, Apply]], labels: np.ndarray) -> HeldColumns:
    """Pooled held-out predictions for every column of labels, in the order of `_order(folds)`."""
    scores = [apply(labels[train]) for train, apply in prepared]
    decisions = [_decide(score.values + score.offset, problem) for score in scores]
    probabilities = [score.probability for score in scores if score.probability is not None]
    return HeldColumns(
        labels[_order(folds)],
        np.concatenate([score.values for score in scores]),
        np.concatenate(decisions),
        np.concatenate(probabilities) if len(probabilities) == len(scores) else None,
    )


def _decide(full: np.ndarray, problem: Problem) -> np.ndarray:
    if not problem.classes:
        return full[:, :, 0].astype(np.float64)
    return full.argmax(2) if full.shape[2] > 1 else (full[:, :, 0] > 0).astype(np.int64)


def _order(folds: list[Fold]) -> Int[np.ndarray, "tested"]:
    return np.concatenate([fold.test for fold in folds])


def _taken(held: Held, rows: np.ndarray) -> Held:
    probability = None if held.probability is None else held.probability[rows]
    return Held(held.truth[rows], held.values[rows], held.decision[rows], probability)


def interval_of(
    problem: Problem, metric: Metric, held: Sequence[Held], rows: Int[np.ndarray, "tested"], settings: Settings
) -> Interval:
    """Mean of the metric over repeats, with the bootstrap over the subjects of `rows`."""
    strata = problem.y[rows].astype(np.int64) if problem.classes and problem.subject_level else None
    return bootstrap_interval(
        lambda weights: np.mean([metric.function(h, weights) for h in held], axis=0),
        problem.subjects[rows], strata=strata, draws=settings.bootstrap, seed=settings.seed, bounded=metric.bounded,
    )  # fmt: skip


def _row(
    problem: Problem, candidate: Candidate, name: str, metric: Metric, held: Sequence[Held], tested: np.ndarray,
    null: np.ndarray, settings: Settings,
) -> Row:  # fmt: skip
    interval = interval_of(problem, metric, held, tested, settings)
    chance, margin = metric.chance(len(problem.classes)), settings.equivalence_margin
    equivalent = metric.equivalence and chance is not None and margin > 0 and len(interval.resampled) and candidate.informative
    return Row(
        candidate.name, candidate.baseline, name, interval.value, interval.low, interval.high,
        p_value(interval.value, null, metric.higher_is_better) if len(null) else None,
        chance, len(np.unique(problem.subjects[tested])), len(tested), problem.unit,
        p_equivalence=equivalence_p(interval, chance, margin) if equivalent and chance is not None else None,
    )  # fmt: skip


def provenance(settings: Settings) -> dict[str, Any]:
    """Settings for the record."""
    return dict(vars(settings))
