"""Several targets from the same embeddings: shared permutations, p-values corrected for their number, and a macro average.

One metric per target, its first (AUC, R2), makes the family; each model is its own family over the targets. How labels change
places, missing labels and targets of different levels: see `statistics.joint`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from ssl4neuro.data.embeddings import SCAN_KEY
from ssl4neuro.evaluate.crossval import Candidate, Outcome, Row, Settings, evaluate, exchange
from ssl4neuro.evaluate.metrics import METRICS
from ssl4neuro.evaluate.predictions import KEYS
from ssl4neuro.evaluate.problem import Problem
from ssl4neuro.evaluate.statistics import Exchange, bootstrap_interval, joint_labels, max_statistic_p, p_value

Labels = tuple[Float[np.ndarray, "rows columns"], str]
COLUMNS = ("target", "model", "baseline", "metric", "value", "ci_low", "ci_high", "p", "p_corrected", "n_subjects")


@dataclass(frozen=True)
class Answer:
    """All models of one target."""

    problem: Problem
    outcomes: tuple[Outcome, ...]
    permutation: str

    @property
    def models(self) -> dict[str, Outcome]:
        """By name."""
        return {outcome.rows[0].name: outcome for outcome in self.outcomes}


def evaluate_targets(
    problems: Sequence[Problem], candidates: Sequence[Sequence[Candidate]], settings: Settings
) -> tuple[list[Answer], pd.DataFrame]:
    """Cross-validate the candidates of every target under shared permutations; `p_corrected` is in the rows and in the table.

    Args:
        problems: targets over the same people; a subject's rows need not be the same in all.
        candidates: of each target.

    Raises:
        UserError: a target cannot be cross-validated, or its labels cannot change places.
    """
    answers = []
    for problem, own, labels in zip(problems, candidates, joint_null(problems, settings), strict=True):
        outcomes, scheme = evaluate(problem, own, settings, labels=labels)
        answers.append(Answer(problem, tuple(outcomes), scheme))
    answers = corrected(answers)
    return answers, target_table(answers, settings)


def joint_null(problems: Sequence[Problem], settings: Settings) -> list[Labels]:
    """For each target what `crossval.null_labels` returns, column k of all of them under the same rearrangement."""
    if settings.permutations < 1:
        return [(problem.y[:, None], "none") for problem in problems]
    exchanges = [_named(problem) for problem in problems]
    shuffled = joint_labels(exchanges, settings.permutations, settings.seed)
    told = ", the same for all targets"
    return [
        (np.concatenate([problem.y[:, None], labels], axis=1), found.scheme + told)
        for problem, found, labels in zip(problems, exchanges, shuffled, strict=True)
    ]


def _named(problem: Problem) -> Exchange:
    """With names of subjects, scans or rows that mean the same in all targets."""
    found = exchange(problem)
    columns = {"between": ("subject",), "within subjects": SCAN_KEY, "within scans": (*SCAN_KEY, *KEYS)}
    kind = next(kind for kind in columns if found.scheme.startswith(kind))
    parts = [c for c in dict.fromkeys(columns[kind]) if c in problem.table]
    names = problem.table[parts].astype(str).agg("\t".join, axis=1)
    return found._replace(unit=names.to_numpy(dtype=str))


def corrected(answers: Sequence[Answer]) -> list[Answer]:
    """With `p_corrected` in the first row of every model that all targets have."""
    shared = set.intersection(*(set(answer.models) for answer in answers)) if len(answers) > 1 else set()
    found: dict[str, np.ndarray] = {}
    for name in shared:
        outcomes = [answer.models[name] for answer in answers]
        rows = [outcome.rows[0] for outcome in outcomes]
        nulls = [outcome.null[row.metric] for outcome, row in zip(outcomes, rows, strict=True)]
        if all(len(null) for null in nulls):  # the first metric of every task is better when higher
            found[name] = max_statistic_p(np.array([row.value for row in rows]), np.stack(nulls, axis=1))
    return [
        replace(answer, outcomes=tuple(_with_p(outcome, found, i) for outcome in answer.outcomes))
        for i, answer in enumerate(answers)
    ]


def _with_p(outcome: Outcome, found: Mapping[str, np.ndarray], target: int) -> Outcome:
    first = outcome.rows[0]
    if first.name not in found:
        return outcome
    return replace(outcome, rows=(replace(first, p_corrected=float(found[first.name][target])), *outcome.rows[1:]))


def target_table(answers: Sequence[Answer], settings: Settings) -> pd.DataFrame:
    """First metric of every model and target; below, the macro average of the binary targets if there are several."""
    rows = [(answer.problem.target, outcome.rows[0]) for answer in answers for outcome in answer.outcomes]
    binary = [answer for answer in answers if answer.problem.task == "binary"]
    if len(binary) > 1:
        names = [name for name in binary[0].models if all(name in answer.models for answer in binary)]
        rows += [(f"macro average of {len(binary)}", macro_average(binary, name, settings)) for name in names]
    lines = [
        (target, row.name, row.baseline, row.metric, row.value, row.ci_low, row.ci_high, row.p, row.p_corrected, row.n_subjects)
        for target, row in rows
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS))


def macro_average(answers: Sequence[Answer], model: str, settings: Settings, metric: str = "AUC") -> Row:
    """Mean of a metric over binary targets: a resample draws subjects with all their labels, a permutation moves them alike."""
    function = METRICS["binary"][metric]
    outcomes = [answer.models[model] for answer in answers]
    names = [a.problem.table["subject"].astype(str).to_numpy()[o.tested] for a, o in zip(answers, outcomes, strict=True)]
    people = np.unique(np.concatenate(names))
    places = [np.searchsorted(people, name) for name in names]

    def mean(weights: Float[np.ndarray, "draws subjects"]) -> Float[np.ndarray, "draws"]:
        values = [
            function.function(held, weights[:, place])
            for outcome, place in zip(outcomes, places, strict=True)
            for held in outcome.held
        ]
        return np.mean(values, axis=0)

    interval = bootstrap_interval(
        mean, np.arange(len(people)), draws=settings.bootstrap, seed=settings.seed, bounded=function.bounded
    )
    nulls = [outcome.null[metric] for outcome in outcomes]
    tested = all(len(null) for null in nulls)
    return Row(
        model, outcomes[0].rows[0].baseline, metric, interval.value, interval.low, interval.high,
        p_value(interval.value, np.mean(nulls, axis=0), function.higher_is_better) if tested else None,
        function.chance(2), len(people), sum(len(place) for place in places), "subject",
    )  # fmt: skip


def summary(table: pd.DataFrame) -> list[dict[str, Any]]:
    """JSON-ready lines; numbers that do not exist are null."""
    return [
        {str(name): None if isinstance(value, float) and not np.isfinite(value) else value for name, value in line.items()}
        for line in table.astype(object).where(table.notna(), None).to_dict("records")
    ]
