"""The one evaluation loop: the same outer folds, intervals and permutations for embeddings and baselines alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.features import Features
from ssl4neuro.evaluate.folds import Fold, site_folds, subject_folds
from ssl4neuro.evaluate.metrics import METRICS, Held, Metric, confusion
from ssl4neuro.evaluate.problem import Problem
from ssl4neuro.evaluate.protocol import Apply, Probe
from ssl4neuro.evaluate.statistics import bootstrap_interval, p_value, permutation_scheme, permuted_labels
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


@dataclass(frozen=True)
class Outcome:
    """All numbers of one candidate."""

    rows: tuple[Row, ...]
    predictions: pd.DataFrame
    confusion: list[list[float]] | None  # true class by predicted class, mean over repeats


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


def null_labels(problem: Problem, settings: Settings) -> tuple[Float[np.ndarray, "rows columns"], str]:
    """True labels in the first column, permuted ones in the others, and how they were permuted."""
    if not settings.permutations:
        return problem.y[:, None], "none"
    scheme = permutation_scheme(problem.y, problem.subjects, problem.scans)
    blocks: np.ndarray | None = None
    told: str = scheme
    if scheme == "between subjects":
        # Seen subjects only train. Exchanging labels among the tested alone keeps their class counts, and the power with them.
        blocks = problem.wall.testable.astype(np.int64)
        if problem.sites is not None:
            blocks = blocks + 2 * pd.Series(problem.sites).groupby(problem.subjects).transform("first").to_numpy(dtype=np.int64)
            told += " of the same site"
    shuffled = permuted_labels(problem.y, problem.subjects, problem.scans, scheme, settings.permutations, settings.seed, blocks)
    return np.concatenate([problem.y[:, None], shuffled], axis=1), told


def evaluate(
    problem: Problem, candidates: Sequence[Candidate], settings: Settings, *, show: bool = False
) -> tuple[list[Outcome], str]:
    """Cross-validate every candidate in the same folds under the same permutations; returns the permutation scheme too."""
    repeats = make_folds(problem, settings)
    labels, scheme = null_labels(problem, settings)
    outcomes = []
    with progress("probe", len(candidates), "model", show=show) as bar:
        for candidate in candidates:
            columns = labels if candidate.informative else labels[:, :1]
            outcomes.append(_evaluate_one(problem, candidate, repeats, columns, settings))
            bar.advance(1)
    return outcomes, scheme


def _evaluate_one(
    problem: Problem, candidate: Candidate, repeats: list[list[Fold]], labels: np.ndarray, settings: Settings
) -> Outcome:
    prepared = [[_prepare(problem, candidate, fold, settings.seed) for fold in folds] for folds in repeats]
    metrics = METRICS[problem.task]
    held = [_held_out(problem, folds, applies, labels[:, :1])[0] for folds, applies in zip(repeats, prepared, strict=True)]
    null = {name: np.zeros(labels.shape[1] - 1) for name in metrics}
    step = max(1, NUMBERS_AT_ONCE // (len(problem.y) * max(1, len(problem.classes))))
    for start in range(1, labels.shape[1], step):
        part = labels[:, start : start + step]
        for folds, applies in zip(repeats, prepared, strict=True):
            for column, shuffled in enumerate(_held_out(problem, folds, applies, part)):
                for name, metric in metrics.items():
                    null[name][start - 1 + column] += _plain(metric, shuffled) / len(repeats)
    rows = tuple(
        _row(problem, candidate, name, metric, held, repeats, null[name], settings) for name, metric in metrics.items()
    )
    tables = None
    if problem.classes:
        ones = np.ones((1, len(held[0].truth)))
        tables = np.mean([confusion(h, ones, len(problem.classes))[0] for h in held], axis=0).tolist()
    return Outcome(rows, _predictions(problem, candidate.name, repeats, held), tables)


def _prepare(problem: Problem, candidate: Candidate, fold: Fold, seed: int) -> tuple[np.ndarray, Apply]:
    train = fold.train
    if candidate.max_train is not None and len(train) > candidate.max_train:
        train = np.sort(np.random.default_rng([seed, 0x5AB]).choice(train, candidate.max_train, replace=False))
    x, x_test = candidate.features.fold(train, fold.test)
    return train, candidate.probe.prepare(x, x_test, problem.subjects[train], problem.task, len(problem.classes), seed)


def _held_out(problem: Problem, folds: list[Fold], prepared: list[tuple[np.ndarray, Apply]], labels: np.ndarray) -> list[Held]:
    """Pooled held-out predictions for every column of labels, in the order of `_order(folds)`."""
    values, decisions = [], []
    for (train, apply), _ in zip(prepared, folds, strict=True):
        scores = apply(labels[train])
        values.append(scores.values)
        full = scores.values + scores.offset
        decisions.append(_decide(full, problem))
    value, decision, truth = np.concatenate(values), np.concatenate(decisions), labels[_order(folds)]
    return [Held(truth[:, i], value[:, i], decision[:, i]) for i in range(labels.shape[1])]


def _decide(full: np.ndarray, problem: Problem) -> np.ndarray:
    if not problem.classes:
        return full[:, :, 0].astype(np.float64)
    return full.argmax(2) if full.shape[2] > 1 else (full[:, :, 0] > 0).astype(np.int64)


def _order(folds: list[Fold]) -> Int[np.ndarray, "tested"]:
    return np.concatenate([fold.test for fold in folds])


def _plain(metric: Metric, held: Held) -> float:
    return float(metric.function(held, np.ones((1, len(held.truth))))[0])


def _row(
    problem: Problem, candidate: Candidate, name: str, metric: Metric, held: list[Held], repeats: list[list[Fold]],
    null: np.ndarray, settings: Settings,
) -> Row:  # fmt: skip
    # Repeats test the same rows in another order; sorted alike they share the resampled subjects; metrics are averaged.
    order = [np.argsort(_order(folds), kind="stable") for folds in repeats]
    tested = np.sort(_order(repeats[0]))
    aligned = [Held(h.truth[o], h.values[o], h.decision[o]) for h, o in zip(held, order, strict=True)]
    subjects = problem.subjects[tested]
    strata = problem.y[tested].astype(np.int64) if problem.classes and problem.subject_level else None
    interval = bootstrap_interval(
        lambda weights: np.mean([metric.function(h, weights) for h in aligned], axis=0),
        subjects, strata=strata, draws=settings.bootstrap, seed=settings.seed, bounded=metric.bounded,
    )  # fmt: skip
    p = p_value(interval.value, null, metric.higher_is_better) if len(null) else None
    return Row(
        candidate.name, candidate.baseline, name, interval.value, interval.low, interval.high, p,
        metric.chance(len(problem.classes)), len(np.unique(subjects)), len(tested), problem.unit,
    )  # fmt: skip


def _predictions(problem: Problem, name: str, repeats: list[list[Fold]], held: list[Held]) -> pd.DataFrame:
    keys = [c for c in ("subject", "session", "run", "row", "component", "seen") if c in problem.table]
    frames = []
    for repeat, (folds, out) in enumerate(zip(repeats, held, strict=True)):
        rows = _order(folds)
        columns: dict[str, Any] = {"model": name, "repeat": repeat}
        columns["fold"] = np.repeat(np.arange(len(folds)), [len(fold.test) for fold in folds])
        columns |= {key: problem.table[key].to_numpy()[rows] for key in keys}
        if problem.classes:
            names = np.array(problem.classes, dtype=object)
            columns |= {"truth": names[out.truth.astype(int)], "prediction": names[out.decision]}
            shown = problem.classes if out.values.shape[1] > 1 else problem.classes[1:]
            columns |= {f"score {label}": out.values[:, i] for i, label in enumerate(shown)}
        else:
            columns |= {"truth": out.truth, "prediction": out.decision}
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)


def provenance(settings: Settings) -> dict[str, Any]:
    """Settings for the record."""
    return dict(vars(settings))
