"""Do permuted labels change places at the level at which the target varies?

Permuting rows tears the scans of a subject apart, and p comes out too small; permuting within subjects a label that is a
property of the subject changes nothing, and p is 1 whatever the features say (scikit-learn's issue 21543).
"""

import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.statistics import constant_within

NAME = "labels permuted at the wrong level"
DRAWS = 20


def permuting(
    y: Float[np.ndarray, "rows"], permuted: Float[np.ndarray, "rows permutations"], subjects: Int[np.ndarray, "rows"]
) -> Check:
    """Hold permuted labels against the true ones.

    Args:
        permuted: a column per permutation, without the true labels.
    """
    if not permuted.shape[1]:
        return Check(NAME, "passed", "no permutation was asked for")
    same = float((permuted == y[:, None]).all(0).mean())
    if same > 0.5:
        return Check(NAME, "flagged", f"{same:.0%} of the permutations leave every label in its place, so p cannot be small")
    whole = constant_within(y, subjects)
    if whole.all():
        torn = sum(int((~constant_within(column, subjects)).sum()) for column in permuted.T)
        if torn:
            detail = "labels are a property of the subject, and permuted ones differ between scans of a subject"
            return Check(NAME, "flagged", detail)
        return Check(NAME, "passed", "labels change places between subjects, a subject's rows together")
    return Check(NAME, "passed", "labels change places at the level at which they vary")
