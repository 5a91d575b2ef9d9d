"""A result in plain words: evidence, no evidence, or equivalent to chance."""

from ssl4neuro.evaluate.crossval import Row

LEVEL = 0.05


def verdict(row: Row, margin: float, level: float = LEVEL) -> str:
    """What may be said of one number.

    "No evidence" is not evidence of nothing: only "equivalent to chance" says that an effect beyond the margin is unlikely.
    With several targets the corrected p decides.

    Args:
        row: of a model with a p-value.
        margin: the equivalence margin of the run.
    """
    p = row.p if row.p_corrected is None else row.p_corrected
    if p is None or p != p:
        return "not tested"
    near = row.p_equivalence is not None and row.p_equivalence <= level
    if p <= level:
        return f"evidence of an effect, smaller than {margin:g} above chance" if near else "evidence of an effect"
    return f"equivalent to chance within ±{margin:g}" if near else "no evidence of an effect"
