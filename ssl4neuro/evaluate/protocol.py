"""What a probe is: the label-free part is prepared once per fold, then applied to the true labels and to every permutation.

All probes treat columns of labels alike, so that a permutation test refits everything that the labels decide (weights, C, k,
templates) at the cost of a few matrix products.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.evaluate.metrics import Task


class Scores(NamedTuple):
    """Held-out scores for each column of labels.

    `values` carry no intercept and are in units of their spread on the training rows: only so may scores of different folds
    be pooled. With an intercept, leaving a positive out lowers the training prior and thereby its own score, and
    the pooled AUC of leave-one-out falls far below 0.5 without any information (Parker et al. 2007). `values + offset`
    decides the class: above 0, or the largest. In regression `values` is in the target's units and the sum is the prediction.
    `probability` of class 1 (binary) or of every class is the fitted model's own, training prior included, where it has one.
    """

    values: Float[np.ndarray, "test columns outputs"]
    offset: Float[np.ndarray, "columns outputs"]
    probability: Float[np.ndarray, "test columns outputs"] | None = None


def joined(parts: list[Scores]) -> Scores:
    """Scores of blocks of columns as one."""
    probabilities = [part.probability for part in parts if part.probability is not None]
    return Scores(
        np.concatenate([part.values for part in parts], axis=1),
        np.concatenate([part.offset for part in parts]),
        np.concatenate(probabilities, axis=1) if probabilities else None,
    )


Apply = Callable[[Float[np.ndarray, "train columns"]], Scores]


@runtime_checkable
class Probe(Protocol):
    """A supervised read-out of frozen features. A new one is such a class and one line in `probes.py`."""

    def prepare(
        self,
        train: Float[np.ndarray, "train *dim"],
        test: Float[np.ndarray, "test *dim"],
        groups: Int[np.ndarray, "train"],
        task: Task,
        classes: int,
        seed: int,
    ) -> Apply:
        """Everything that does not depend on labels; the result maps label columns of the training rows to test scores.

        Nothing may be computed from `test` but its own scores. `groups` are the subjects of the training rows, for inner
        folds. Label columns hold class codes, or values in regression.
        """
        ...


def targets(labels: Float[np.ndarray, "rows columns"], task: Task, classes: int) -> Float[np.ndarray, "rows columns outputs"]:
    """What to fit: the value, membership of class 1 (binary), or one membership per class."""
    if task == "regression":
        return labels[:, :, None].astype(np.float32)
    codes = np.array([1]) if task == "binary" else np.arange(classes)
    return (labels[:, :, None] == codes).astype(np.float32)


def columns_per_block(rows: int, outputs: int, numbers: int = 4_000_000) -> int:
    """How many label columns to treat at once without using much memory."""
    return max(1, numbers // max(1, rows * outputs))
