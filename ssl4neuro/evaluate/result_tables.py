"""Tables beside the main one: the metric of each site, the difference from the best baseline, and DeLong's interval."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ssl4neuro.evaluate.compare import paired_difference
from ssl4neuro.evaluate.crossval import Candidate, Outcome, Settings, interval_of
from ssl4neuro.evaluate.metrics import METRICS, Held
from ssl4neuro.evaluate.problem import Problem
from ssl4neuro.evaluate.statistics import delong_interval
from ssl4neuro.evaluate.statistics.delong import from_placements, placements

SITES = ("model", "baseline", "site", "metric", "value", "ci_low", "ci_high", "n_subjects")
COMPARISON = ("model", "baseline", "metric", "value", "value_baseline", "difference", "ci_low", "ci_high", "p", "p_delong")
DELONG = ("model", "baseline", "auc", "se", "ci_low", "ci_high", "n_subjects")


def result_tables(
    problem: Problem, candidates: Sequence[Candidate], outcomes: Sequence[Outcome], settings: Settings
) -> dict[str, pd.DataFrame]:
    """Those that apply, by name."""
    tables = {
        "sites": site_table(problem, candidates, outcomes, settings),
        "comparison": comparison_table(problem, candidates, outcomes, settings),
        "delong": delong_table(problem, candidates, outcomes),
    }
    return {name: table for name, table in tables.items() if len(table)}


def site_table(
    problem: Problem, candidates: Sequence[Candidate], outcomes: Sequence[Outcome], settings: Settings
) -> pd.DataFrame:
    """Every metric on the held-out rows of each site; empty without sites. NaN where a site lacks a class."""
    names, lines = problem.site_names, []
    for candidate, outcome in zip(candidates, outcomes, strict=True):
        tested = np.zeros(0) if names is None else names[outcome.tested]
        for site in sorted(set(tested)):
            own = tested == site
            rows, held = outcome.tested[own], [_only(h, own) for h in outcome.held]
            for name, metric in METRICS[problem.task].items():
                found = interval_of(problem, metric, held, rows, settings)
                count = len(np.unique(problem.subjects[rows]))
                lines.append((candidate.name, candidate.baseline, site, name, found.value, found.low, found.high, count))
    return pd.DataFrame(lines, columns=list(SITES))


def comparison_table(
    problem: Problem, candidates: Sequence[Candidate], outcomes: Sequence[Outcome], settings: Settings
) -> pd.DataFrame:
    """Every model against the baseline that is best in a metric: held-out numbers choose it, which favours the baseline."""
    models = [o for c, o in zip(candidates, outcomes, strict=True) if not c.baseline]
    others = [o for c, o in zip(candidates, outcomes, strict=True) if c.baseline and c.informative]
    lines = []
    for outcome in models if others else []:
        for i, row in enumerate(outcome.rows):
            sign = 1 if METRICS[problem.task][row.metric].higher_is_better else -1
            best = max(others, key=lambda other: np.nan_to_num(sign * other.rows[i].value, nan=-np.inf))
            found = paired_difference(
                problem.task, row.metric, outcome.held, best.held, problem.subjects[outcome.tested],
                names=(row.name, best.rows[i].name), strata=_strata(problem, outcome.tested), draws=settings.bootstrap,
                permutations=settings.permutations, seed=settings.seed,
            )  # fmt: skip
            p = found.p if settings.permutations else float("nan")
            lines.append((
                found.model, found.other, found.metric, found.value, found.value_other, found.difference, found.ci_low,
                found.ci_high, p, found.p_delong,
            ))  # fmt: skip
    return pd.DataFrame(lines, columns=list(COMPARISON))


def delong_table(problem: Problem, candidates: Sequence[Candidate], outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """AUC of two classes with standard error and interval by subject (Obuchowski 1997), as a check of the bootstrap."""
    lines = []
    for candidate, outcome in zip(candidates, outcomes, strict=True):
        if problem.task != "binary" or not candidate.informative:
            continue
        positive, subjects = outcome.held[0].truth == 1, problem.subjects[outcome.tested]
        placed = np.mean([placements(positive, held.values[:, 0]) for held in outcome.held], axis=0)
        found = from_placements(positive, placed[:, None], subjects)
        auc, variance = float(found.auc[0]), float(found.covariance[0, 0])
        error = float(np.sqrt(max(variance, 0.0))) if np.isfinite(variance) else float("nan")
        lines.append(
            (candidate.name, candidate.baseline, auc, error, *delong_interval(auc, variance), len(np.unique(subjects)))
        )
    return pd.DataFrame(lines, columns=list(DELONG))


def _only(held: Held, rows: np.ndarray) -> Held:
    return held._replace(truth=held.truth[rows], values=held.values[rows], decision=held.decision[rows], probability=None)


def _strata(problem: Problem, rows: np.ndarray) -> np.ndarray | None:
    return problem.y[rows].astype(np.int64) if problem.classes and problem.subject_level else None
