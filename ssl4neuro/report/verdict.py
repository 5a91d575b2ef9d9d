"""Plain words for a test: evidence, no evidence, or equivalent to chance, and never more than the numbers allow."""

from collections.abc import Mapping
from typing import Any

from ssl4neuro.report.page import number

LEVEL = 0.05
GLOSSARY = {
    "AUC": "AUC: how often a random member of the one class gets a higher score than a random member of the other; 0.5 is a"
    " coin toss, 1 is perfect.",
    "balanced accuracy": "Balanced accuracy: the share that is classified correctly, averaged over the classes.",
    "R2": "R²: the share of the variance that the prediction explains; 0 or less is no better than the mean.",
    "Spearman": "Spearman: correlation of predicted and true ranks.",
    "MAE": "MAE: mean absolute error, in the unit of the target.",
}


def interval(row: Mapping[str, Any]) -> str:
    """`0.612 to 0.874`, a dash where there is none."""
    low, high = row.get("ci_low"), row.get("ci_high")
    return "–" if low is None or high is None else f"{number(low)} to {number(high)}"


def p_value(value: Any) -> str:
    """`0.0321`, `<0.0001`, a dash where no test was made."""
    return "–" if value is None else "<0.0001" if value < 1e-4 else f"{value:.4f}"


def p_words(value: float) -> str:
    """`p = 0.032`, `p < 0.001`; three decimals, more where it is close to the level."""
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.3f}" if round(value, 3) != LEVEL else f"p = {value:.4f}"


def against_chance(row: Mapping[str, Any], margin: float | None = None) -> tuple[str, str]:
    """Answer to "can it be predicted?": a word (`evidence`, `no evidence`, `equivalent`, `untested`) and a sentence.

    Args:
        row: p, p_corrected (over targets; counts where it is there), p_equivalence, chance, value, ci_low, ci_high.
        margin: of the equivalence test, on the scale of the metric.
    """
    p = row["p"] if row.get("p_corrected") is None else row["p_corrected"]
    corrected = "" if row.get("p_corrected") is None else ", corrected for the number of targets"
    if p is None:
        return "untested", _untested(row)
    near = row.get("p_equivalence") is not None and row["p_equivalence"] <= LEVEL
    within = f"within ± {number(margin, 2)} of chance" if margin is not None else "within the margin around chance"
    if p <= LEVEL:
        text = f"Evidence that it can ({p_words(p)}{corrected})"
        return "evidence", text + (f", but hardly: the value lies {within} ({p_words(row['p_equivalence'])})." if near else ".")
    if near:
        return "equivalent", (
            f"No evidence that it can ({p_words(p)}{corrected}), and evidence that it hardly can: the value lies {within}"
            f" (two one-sided tests, {p_words(row['p_equivalence'])})."
        )
    return "no evidence", f"No evidence that it can ({p_words(p)}{corrected}).{_open(row)}"


def _open(row: Mapping[str, Any]) -> str:
    """What a test without a result leaves open."""
    chance, low, high = (row.get(key) for key in ("chance", "ci_low", "ci_high"))
    if low is None or high is None:
        return ""
    if chance is not None and high < chance:  # what has a chance level is better when higher
        return f" The interval ({interval(row)}) lies below chance: it does worse than guessing."
    if chance is not None and low > chance:
        return f" The interval ({interval(row)}) excludes chance; where subjects are few, rather trust the permutation test."
    return f" That is no evidence that it cannot: values from {interval(row)} agree with the data."


def _untested(row: Mapping[str, Any]) -> str:
    chance, low, high = (row.get(key) for key in ("chance", "ci_low", "ci_high"))
    if chance is None or low is None or high is None:
        return "No test against chance was made."
    where = "includes" if low <= chance <= high else "excludes"
    return f"No permutation test was made; the interval {where} chance ({number(chance)})."


def against_baseline(own: Mapping[str, Any], best: Mapping[str, Any], paired: Mapping[str, Any] | None, sign: int) -> str:
    """Whether the embedding is better than the baseline: by the paired difference where there is one, else by two intervals.

    Args:
        sign: 1 where more is better, -1 where less is.
    """
    if paired is not None and paired.get("difference") is not None:
        p = paired.get("p")
        certain = f"95 % CI {interval(paired)}{'' if p is None else ', ' + p_words(p)}"
        told = f"Paired difference {signed(paired['difference'])} ({certain})"
        better = "better" if sign * paired["difference"] > 0 else "worse"
        if p is None:
            clear = paired.get("ci_low") is not None and not paired["ci_low"] <= 0 <= paired["ci_high"]
        else:
            clear = p <= LEVEL
        return f"{told}: {f'evidence that the embedding is {better}' if clear else 'no evidence of a difference'}."
    low, high, base_low, base_high = (row.get(end) for row in (own, best) for end in ("ci_low", "ci_high"))
    gain = sign * (own["value"] - best["value"])
    if low is None or high is None or base_low is None or base_high is None:
        return "The embedding is ahead of it." if gain > 0 else "The embedding is not ahead of it."
    if low > base_high or high < base_low:
        return f"The embedding is {'ahead of' if gain > 0 else 'behind'} it, and the intervals do not overlap."
    return "The intervals overlap, so these numbers alone do not show that one is better than the other."


def signed(value: float) -> str:
    """`+0.042`, `−0.010`."""
    return f"{'+' if value >= 0 else '−'}{number(abs(value))}"
