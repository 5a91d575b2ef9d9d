"""Correction for several targets by the largest statistic (Westfall & Young 1993; Nichols & Holmes 2002).

Under joint permutations the null distribution of the largest statistic knows how the targets depend on one another, so the
correction costs little where they are alike (age and grey-matter loss), and never more than Bonferroni's.
"""

import numpy as np
from jaxtyping import Float


def max_statistic_p(
    observed: Float[np.ndarray, "targets"], null: Float[np.ndarray, "permutations targets"]
) -> Float[np.ndarray, "targets"]:
    """Family-wise p of each target; larger statistics are better.

    Each target is standardised over all arrangements, the observed one among them, so that an AUC and an R2 weigh the same and
    no arrangement is favoured. A statistic undefined under a permutation takes no part in that permutation's maximum; a
    target with an undefined observation has NaN.
    """
    every = np.concatenate([observed[None], null])
    known = np.isfinite(every)
    count = np.maximum(known.sum(0), 1)
    centred = np.where(known, every, 0) - np.where(known, every, 0).sum(0) / count
    spread = np.sqrt((np.where(known, centred, 0) ** 2).sum(0) / count)
    z = np.where(known, centred / np.where(spread > 1e-12, spread, 1.0), -np.inf)
    largest = z.max(1)
    p = (largest[:, None] >= z[0] - 1e-9).mean(0)
    return np.where(known[0], p, np.nan)
