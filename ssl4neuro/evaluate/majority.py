"""The answer that looks at no feature: the most frequent class, or the training mean."""

import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.protocol import Apply, Scores


class MajorityProbe:
    """`code` is the most frequent class of all labelled rows. Taken fold by fold it would be the class that the test fold has
    less of, and with balanced classes and one subject left out always the wrong one."""

    def __init__(self, code: int = 0) -> None:
        self.code = code

    def prepare(
        self,
        train: Float[np.ndarray, "train dim"],
        test: Float[np.ndarray, "test dim"],
        groups: Int[np.ndarray, "train"],
        task: Task,
        classes: int,
        seed: int,
    ) -> Apply:
        def apply(labels: np.ndarray) -> Scores:
            outputs = classes if task == "multiclass" else 1
            values = np.zeros((len(test), labels.shape[1], outputs))
            offset = np.zeros((labels.shape[1], outputs))
            if task == "regression":
                offset += labels.mean(0)[:, None]
            elif task == "binary":
                offset += self.code - 0.5
            else:
                offset[:, self.code] = 1.0
            return Scores(values, offset)

        return apply
