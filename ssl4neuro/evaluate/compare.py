"""Two models on the same held-out rows: the difference of their metrics, with interval and p, subjects as the unit.

Bootstrap and permutations treat both models alike and together: a resample takes both answers of a subject, an exchange swaps
them (`statistics.paired`). The trained models stay as they are, so this says which of these models does better on new subjects
of this population, not which method would after another training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.evaluate.column_metrics import HeldColumns, column_metric, column_ranks
from ssl4neuro.evaluate.metrics import METRICS, Held, Task
from ssl4neuro.evaluate.statistics import bootstrap_interval, delong_p, exchange_p
from ssl4neuro.evaluate.statistics.delong import from_placements, placements


@dataclass(frozen=True)
class Difference:
    """Metric of one model less that of another."""

    model: str
    other: str
    metric: str
    value: float
    value_other: float
    difference: float
    ci_low: float  # 95 %, both models under the same resampled subjects
    ci_high: float
    p: float  # two-sided, the models exchanged subject by subject
    exact: bool  # all exchanges, not a sample of them
    p_delong: float | None  # normal approximation by subject, for the AUC of two classes
    n_subjects: int
    n_samples: int


def paired_difference(
    task: Task,
    metric: str,
    first: Sequence[Held],
    second: Sequence[Held],
    subjects: Int[np.ndarray, "rows"],
    *,
    names: tuple[str, str],
    strata: Int[np.ndarray, "rows"] | None = None,
    draws: int = 2000,
    permutations: int = 9999,
    seed: int = 0,
) -> Difference:
    """Difference of one metric.

    Args:
        task: decides what the metric means.
        first, second: predictions of the same rows, one entry per repeat of the cross-validation.
        subjects: of each row.
        names: of the models.
        strata: classes of subjects to resample within, constant within a subject.
        draws: of the bootstrap.
        permutations: exchanges drawn; with 12 subjects or fewer all are tried.
    """
    score = METRICS[task][metric].function

    def gain(weights: Float[np.ndarray, "draws rows"]) -> Float[np.ndarray, "draws"]:
        return np.mean([score(a, weights) - score(b, weights) for a, b in zip(first, second, strict=True)], axis=0)

    ones = np.ones((1, len(subjects)))
    value, other = (float(np.mean([score(held, ones)[0] for held in model])) for model in (first, second))
    interval = bootstrap_interval(gain, subjects, strata=strata, draws=draws, seed=seed)
    pairs = [(_on_ranks(a), _on_ranks(b)) for a, b in zip(first, second, strict=True)]

    def exchanged(mask: np.ndarray) -> np.ndarray:
        gains = [
            column_metric(task, metric, _mixed(a, b, mask)) - column_metric(task, metric, _mixed(b, a, mask)) for a, b in pairs
        ]
        return np.mean(gains, axis=0)

    p, exact = exchange_p(exchanged, subjects, permutations, seed)
    p_delong = _delong(first, second, subjects) if metric == "AUC" and task == "binary" else None
    return Difference(
        names[0], names[1], metric, value, other, interval.value, interval.low, interval.high, p, exact, p_delong,
        len(np.unique(subjects)), len(subjects),
    )  # fmt: skip


def _on_ranks(held: Held) -> Held:
    """Scores of two models have no common scale; their ranks among the tested rows do."""
    return held._replace(values=column_ranks(held.values).T)


def _mixed(own: Held, other: Held, mask: np.ndarray) -> HeldColumns:
    """The answers of `own`, with those of `other` where the mask says so."""
    values = np.where(mask[:, :, None], other.values[:, None], own.values[:, None])
    return HeldColumns(own.truth[:, None], values, np.where(mask, other.decision[:, None], own.decision[:, None]))


def _delong(first: Sequence[Held], second: Sequence[Held], subjects: np.ndarray) -> float:
    positive = first[0].truth == 1
    placed = [np.mean([placements(positive, held.values[:, 0]) for held in model], axis=0) for model in (first, second)]
    return delong_p(from_placements(positive, np.stack(placed, axis=1), subjects))
