"""What stands in the place of a region that is taken away: the mean map of other people, so that only what is one's own goes.

A 0 in the middle of a network is a map that no encoder has met: all that is normalised shifts, and what remains counts
for more: planted regions of simulated maps then came out with the wrong sign in two of three networks, and with the mean
in none of them (`tests/benchmarks/bench_explain.py`).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.evaluate.explain_inputs import Inputs
from ssl4neuro.evaluate.explain_target import Question


class Fill(NamedTuple):
    """Volumes on the encoder's grid, and which of them each explained row gets."""

    volumes: Float[np.ndarray, "fills x y z"]
    which: Int[np.ndarray, "rows"]

    def take(self, rows: np.ndarray) -> "Fill":
        """For some of the rows."""
        return Fill(self.volumes, self.which[rows])


def mean_maps(inputs: Inputs, question: Question, modality: str, size: int = 32) -> Fill:
    """Mean maps by network and fold over the rows of the fold's training subjects; for the explained rows, in their order."""
    groups, of_group = np.unique(question.groups, return_inverse=True)
    of_fold = np.zeros(len(question.rows), dtype=np.int64)  # 0: in no test fold
    for number, fold in enumerate(question.folds, start=1):
        of_fold[fold.test] = number
    sums: np.ndarray | None = None
    for place in np.split(np.arange(len(question.rows)), range(size, len(question.rows), size)):
        x = inputs.batch(question.rows[place])["inputs"][modality][:, 0, 0].double().cpu().numpy()
        if sums is None:
            sums = np.zeros((len(question.folds) + 1, len(groups), *x.shape[1:]))
        np.add.at(sums, (of_fold[place], of_group[place]), x)
    assert sums is not None
    counts = np.zeros(sums.shape[:2])
    np.add.at(counts, (of_fold, of_group), 1)
    own, rest = sums[1:], counts.sum(0) - counts[1:]  # a fold's test subjects are those that do not train
    means = (sums.sum(0) - own) / np.maximum(rest, 1)[..., None, None, None]
    which = (of_fold - 1) * len(groups) + of_group
    return Fill(means.reshape(-1, *means.shape[2:]).astype(np.float32), which[question.tested])
