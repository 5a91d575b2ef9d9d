"""Two models on the same held-out rows: the permutation test that exchanges them subject by subject.

If the models are equally good, it does not matter which of them made a subject's predictions. Exchanging both models' answers
for a random half of the subjects therefore shows what differences chance makes. Ranking scores of two models have no
common scale, so their mid-ranks change places (Venkatraman & Begg, Biometrika 1996; Bandos, Rockette & Gur, Stat. Med. 2005);
decisions and predicted values change places as they are.
"""

from collections.abc import Callable
from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int

ENUMERATED = 12  # subjects up to which all exchanges are tried


def exchanges(subjects: int, permutations: int, seed: int) -> tuple[Bool[np.ndarray, "exchanges subjects"], bool]:
    """For whom the models change places, and whether these are all possibilities but the identity.

    Exchanging the complement gives the same difference with the other sign, so half of them are enough for a two-sided test:
    the first subject never moves.
    """
    if subjects <= ENUMERATED:
        every = np.array(list(product((False, True), repeat=subjects - 1)), dtype=bool).reshape(-1, subjects - 1)
        return np.concatenate([np.zeros((len(every), 1), dtype=bool), every], axis=1)[1:], True
    return np.random.default_rng([seed, 0x5A4B]).random((permutations, subjects)) < 0.5, False


def exchange_p(
    difference: Callable[[Bool[np.ndarray, "rows exchanges"]], Float[np.ndarray, "exchanges"]],
    subjects: Int[np.ndarray, "rows"],
    permutations: int,
    seed: int,
) -> tuple[float, bool]:
    """Two-sided p, and whether it is exact.

    Args:
        difference: of the two models when they change places in the rows marked, for each column.
    """
    code = np.unique(subjects, return_inverse=True)[1]
    masks, exact = exchanges(int(code.max()) + 1, permutations, seed)
    observed = abs(float(difference(np.zeros((len(code), 1), dtype=bool))[0]))
    if not np.isfinite(observed):
        return float("nan"), exact
    block = max(1, 4_000_000 // len(code))
    parts = [difference(np.ascontiguousarray(masks[i : i + block].T[code])) for i in range(0, len(masks), block)]
    null = np.abs(np.concatenate(parts)) if parts else np.zeros(0)
    null = null[np.isfinite(null)]
    return float((1 + (null >= observed - 1e-9).sum()) / (1 + len(null))), exact
