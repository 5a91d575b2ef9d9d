"""L2-penalised logistic regression on the head's features: with a hundred scans, the honest reference (network_state.md §5)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression

from ssl4neuro.evaluate.network_state.compact import Fitted
from ssl4neuro.evaluate.network_state.part import Part, cell_loss

PENALTIES = (0.03, 0.3, 3.0, 30.0)  # scikit-learn's C, for blocks of unit variance
WEIGHTS = (0.1, 0.3, 1.0)  # of the embedding beside the compact features


class LogisticScorer:
    """Penalty, and the weight of the embedding's block, are those with the least cross-entropy on the inner splits.

    An encoder knows its training subjects by heart, so their embeddings promise more than those of others keep; how far the
    embedding may be trusted can only be seen on subjects that an inner encoder has not met.

    Args:
        heads: one model per network, or one for all with the networks as indicators.
    """

    def __init__(self, heads: Fitted = "per network", penalties: Sequence[float] = PENALTIES) -> None:
        self.heads, self.penalties = heads, tuple(penalties)

    def choose(self, parts: Sequence[Part]) -> tuple[dict[str, Any], list[Float[np.ndarray, "_"]]]:
        """Options for `score`, and the held-out logits of every inner split with them; the middle ones without a split."""
        weights = WEIGHTS if parts and parts[0].embedded else (1.0,)
        grid = [{"penalty": c, "weight": w} for c in self.penalties for w in weights]
        if not parts:
            return grid[len(grid) // 2], []
        tried = [[self.score(part, options) for part in parts] for options in grid]
        loss = [np.mean([cell_loss(part, z) for part, z in zip(parts, found, strict=True)]) for found in tried]
        best = int(np.argmin(loss))
        return grid[best], tried[best]

    def score(self, part: Part, options: dict[str, Any], seed: int = 0) -> Float[np.ndarray, "test"]:
        """Logits of the rows that did not train; 0 for a network of which only one state trained."""
        gain = np.ones(part.train.shape[1])
        gain[: part.embedded] = options["weight"]
        x, x_test = part.train * gain, part.test * gain
        if self.heads == "shared":
            codes = np.union1d(part.network, part.network_test)
            x = np.column_stack([x, part.network[:, None] == codes])
            x_test = np.column_stack([x_test, part.network_test[:, None] == codes])
            groups = [(np.arange(len(x)), np.arange(len(x_test)))]
        else:
            groups = [
                (np.flatnonzero(part.network == n), np.flatnonzero(part.network_test == n))
                for n in np.unique(part.network_test)
            ]
        logit = np.zeros(len(x_test))
        for train, test in groups:
            if len(np.unique(part.y[train])) == 2 and len(test):
                model = LogisticRegression(C=options["penalty"], max_iter=1000).fit(x[train], part.y[train])
                logit[test] = model.decision_function(x_test[test])
        return logit
