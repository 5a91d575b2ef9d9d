"""k-nearest-neighbour probe by cosine similarity, and the small score that training watches."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl4neuro.evaluate.folds import inner_folds
from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.protocol import Apply, Scores, columns_per_block, joined, targets

NEIGHBOURS = (1, 3, 5, 10, 20, 40)
TEMPERATURE = 0.07  # weight of a neighbour is exp(similarity / TEMPERATURE) (Wu et al. 2018)


def nearest(
    train: Float[np.ndarray, "train dim"], test: Float[np.ndarray, "test dim"], k: int
) -> tuple[Int[np.ndarray, "test k"], Float[np.ndarray, "test k"]]:
    """Indices and vote weights of the k most similar training rows, best first, after centring on the training mean.

    Without centring, features that share a large mean have similarities near 1 and the weights say nothing.
    """
    mean = train.mean(0)
    a, b = train - mean, test - mean
    a = a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-12)
    b = b / np.maximum(np.linalg.norm(b, axis=1, keepdims=True), 1e-12)
    similarity = b @ a.T
    index = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    weight = np.exp((np.take_along_axis(similarity, index, axis=1) - 1) / TEMPERATURE)
    return index, np.maximum(weight, 1e-6).astype(np.float32)


class KnnProbe:
    """Similarity-weighted vote (classes) or mean (values) of the k nearest training rows; k is chosen inside the fold."""

    def __init__(self, neighbours: tuple[int, ...] = NEIGHBOURS, inner: int = 3) -> None:
        self.neighbours, self.inner = neighbours, inner

    def prepare(
        self,
        train: Float[np.ndarray, "train dim"],
        test: Float[np.ndarray, "test dim"],
        groups: Int[np.ndarray, "train"],
        task: Task,
        classes: int,
        seed: int,
    ) -> Apply:
        splits = inner_folds(groups, self.inner, seed)
        least = min([len(fold.train) for fold in splits], default=len(train))
        ks = [k for k in self.neighbours if k <= least] or [1]
        outer = nearest(train, test, ks[-1])
        inner = [(fold, *nearest(train[fold.train], train[fold.test], ks[-1])) for fold in splits]
        outputs = classes if task == "multiclass" else 1

        def apply(labels: np.ndarray) -> Scores:
            block = columns_per_block(len(train), outputs)
            parts = []
            for start in range(0, labels.shape[1], block):
                fit = targets(labels[:, start : start + block], task, classes)
                error = np.zeros((len(ks), fit.shape[1]))
                for fold, index, weight in inner:
                    votes = _votes(fit[fold.train], index, weight, ks)
                    error += [((vote - fit[fold.test]) ** 2).sum(axis=(0, 2)) for vote in votes]
                chosen = len(ks) - 1 - error[::-1].argmin(0)  # the larger k where equal
                guesses = np.stack(_votes(fit, *outer, ks))
                picked = guesses[chosen, :, np.arange(fit.shape[1])].transpose(1, 0, 2)
                # Relative to the training prior: no class gains by being frequent, nor does a left-out subject's class lose
                # by missing it.
                prior = fit.mean(0)
                if task == "regression":
                    parts.append(Scores(picked - prior, prior))
                else:
                    parts.append(Scores(picked - prior, np.zeros_like(prior), picked))
            return joined(parts)

        return apply


def _votes(fit: np.ndarray, index: np.ndarray, weight: np.ndarray, ks: list[int]) -> list[np.ndarray]:
    """Weighted mean of the neighbours' targets for each k, cumulatively: [test, columns, outputs]."""
    total = np.zeros((len(index), *fit.shape[1:]), dtype=np.float32)
    mass = np.zeros((len(index), 1, 1), dtype=np.float32)
    votes = []
    for position in range(index.shape[1]):
        total += weight[:, position, None, None] * fit[index[:, position]]
        mass += weight[:, position, None, None]
        if position + 1 in ks:
            votes.append(total / mass)
    return votes


def knn_score(
    train_x: Float[Tensor, "train dim"],
    train_y: Int[Tensor, "train"],
    test_x: Float[Tensor, "test dim"],
    test_y: Int[Tensor, "test"],
    k: int = 20,
) -> float:
    """Balanced accuracy of a cosine kNN vote, on the tensors' device: the online monitor of a training run.

    Rows with a negative label count as unlabelled and are left out. NaN when no labelled row remains.
    """
    train_x, train_y = train_x[train_y >= 0].float(), train_y[train_y >= 0]
    test_x, test_y = test_x[test_y >= 0].float(), test_y[test_y >= 0]
    if not len(train_y) or not len(test_y):
        return float("nan")
    mean = train_x.mean(0)
    a, b = torch.nn.functional.normalize(train_x - mean, dim=1), torch.nn.functional.normalize(test_x - mean, dim=1)
    similarity, index = (b @ a.T).topk(min(k, len(a)), dim=1)
    classes = int(torch.maximum(train_y.max(), test_y.max())) + 1
    votes = torch.zeros(len(b), classes, device=b.device)
    votes.scatter_add_(1, train_y[index], torch.exp((similarity - 1) / TEMPERATURE).clamp_min(1e-6))
    right = (votes.argmax(1) == test_y).float()
    counts = torch.bincount(test_y, minlength=classes)
    recall = torch.bincount(test_y, weights=right, minlength=classes)[counts > 0] / counts[counts > 0]
    return float(recall.mean())
