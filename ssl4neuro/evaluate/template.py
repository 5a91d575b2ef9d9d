"""Nearest-template probe: correlate a map with the mean training map of each class (the classical way to name components)."""

import numpy as np
from jaxtyping import Float, Int

from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.protocol import Apply, Scores, columns_per_block, targets


class TemplateProbe:
    """Classes only. A template is the mean of a class's z-scored training maps; the score is the correlation with it."""

    def prepare(
        self,
        train: Float[np.ndarray, "train dim"],
        test: Float[np.ndarray, "test dim"],
        groups: Int[np.ndarray, "train"],
        task: Task,
        classes: int,
        seed: int,
    ) -> Apply:
        a, b = _standardise(train), _standardise(test)
        among, between = a @ a.T, b @ a.T  # correlations: templates never need to be formed, whatever the labels

        def apply(labels: np.ndarray) -> Scores:
            block = columns_per_block(len(train), classes)
            parts = [
                _correlate(among, between, labels[:, i : i + block], task, classes) for i in range(0, labels.shape[1], block)
            ]
            values = np.concatenate(parts, axis=1)
            return Scores(values, np.zeros(values.shape[1:], dtype=np.float32))

        return apply


def _correlate(among: np.ndarray, between: np.ndarray, labels: np.ndarray, task: Task, classes: int) -> np.ndarray:
    member = targets(labels, "multiclass", classes)
    flat = member.reshape(len(member), -1)
    length = np.sqrt(np.maximum((flat * (among @ flat)).sum(0), 1e-12))
    score = (between @ flat / length).reshape(len(between), *member.shape[1:])
    return score[:, :, 1:] - score[:, :, :1] if task == "binary" else score


def _standardise(maps: np.ndarray) -> np.ndarray:
    centred = maps.astype(np.float32) - maps.mean(1, keepdims=True, dtype=np.float32)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
