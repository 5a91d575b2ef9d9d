"""Small multilayer perceptron on pooled features: does the label need more than a linear read-out?

One hidden layer on the first principal axes of the training rows, trained on all of them at once and stopped early (Prechelt,
"Early stopping - but when?", 1998): the number of steps, per label column, is the one of least error in inner folds by subject;
then the network is trained again on all training rows for so many steps.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl4neuro.evaluate.folds import inner_folds
from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.protocol import Apply, Scores, joined, targets
from ssl4neuro.evaluate.trained import answer, column_loss, leading_axes, log_prior, scores_of, standardised

NUMBERS_AT_ONCE = 8_000_000
RATE, DECAY = 0.01, 1e-3  # of Adam; of half the squared weights, against the mean loss
LOOK_EVERY = 5  # steps


class Weights(NamedTuple):
    """One network per column."""

    hidden: Float[Tensor, "columns hidden axes"]
    bias: Float[Tensor, "columns hidden"]
    head: Float[Tensor, "columns outputs hidden"]
    intercept: Float[Tensor, "columns outputs"]


class MlpProbe:
    """A perceptron with one hidden layer, its training stopped by subjects that it was not trained on.

    Args:
        hidden: units.
        axes: principal axes of the training rows that are used.
        steps: of Adam, at most.
        inner: folds by subject that choose how many.
    """

    columns_at_once = 50  # of permuted labels, between two signs of life

    def __init__(self, hidden: int = 16, axes: int = 64, steps: int = 150, inner: int = 3) -> None:
        self.hidden, self.axes, self.steps, self.inner = hidden, axes, steps, inner

    def prepare(
        self,
        train: Float[np.ndarray, "train dim"],
        test: Float[np.ndarray, "test dim"],
        groups: Int[np.ndarray, "train"],
        task: Task,
        classes: int,
        seed: int,
    ) -> Apply:
        """See `Probe`."""
        left, right = map(torch.from_numpy, leading_axes(train, test, self.axes))
        splits = inner_folds(groups, self.inner, seed)
        inner = [(f, *map(torch.from_numpy, leading_axes(train[f.train], train[f.test], self.axes))) for f in splits]

        def fit_block(labels: np.ndarray) -> Scores:
            wanted = torch.from_numpy(targets(labels, task, classes))
            model = self._stopped(left, wanted, self._steps(inner, wanted, task, seed), task, seed)
            return scores_of(forward(model, left), forward(model, right), wanted, task)

        def apply(labels: np.ndarray) -> Scores:
            block = max(1, NUMBERS_AT_ONCE // (len(train) * self.hidden))
            return joined([fit_block(labels[:, start : start + block]) for start in range(0, labels.shape[1], block)])

        return apply

    def _steps(
        self, inner: list, wanted: Float[Tensor, "train columns outputs"], task: Task, seed: int
    ) -> Int[Tensor, "columns"]:
        """Looks until the least squared error (of probabilities) on the inner folds, the earlier where equal."""
        looks = 1 + self.steps // LOOK_EVERY
        if not inner:
            return torch.full((wanted.shape[1],), looks // 2)
        error = torch.zeros(looks, wanted.shape[1])
        for fold, left, right in inner:
            known, truth = wanted[torch.from_numpy(fold.train)], wanted[torch.from_numpy(fold.test)]
            _, centre, scale = standardised(known, task)
            for look, model in enumerate(self._train(left, known, task, seed)):
                guess = answer(forward(model, right), task) * scale + centre
                error[look] += (guess - truth).square().sum((0, 2))
        return error.argmin(0)

    def _stopped(self, x: Tensor, wanted: Tensor, stop: Int[Tensor, "columns"], task: Task, seed: int) -> Weights:
        """Every column's network as it was when that column stopped."""
        kept: list[Tensor] = []
        for look, model in enumerate(self._train(x, wanted, task, seed)):
            kept = kept or [part.clone() for part in model]
            for part, now in zip(kept, model, strict=True):
                part[stop == look] = now[stop == look]
            if look == int(stop.max()):
                break
        return Weights(*kept)

    def _train(self, x: Tensor, wanted: Tensor, task: Task, seed: int) -> Iterator[Weights]:
        """The networks before training and after every `LOOK_EVERY` steps."""
        goal = standardised(wanted, task)[0]
        model = _start(x.shape[1], self.hidden, goal, task, seed)
        optimiser = torch.optim.Adam(list(model), lr=RATE)
        yield Weights(*(part.detach() for part in model))
        for step in range(1, self.steps + 1):
            with torch.enable_grad():
                optimiser.zero_grad()
                decay = (model.hidden.square().sum() + model.head.square().sum()) * DECAY / 2
                (column_loss(forward(model, x), goal, task).sum() / len(x) + decay).backward()  # columns do not meet
                optimiser.step()
            if step % LOOK_EVERY == 0:
                yield Weights(*(part.detach() for part in model))


def forward(model: Weights, x: Float[Tensor, "units axes"]) -> Float[Tensor, "units columns outputs"]:
    """Output of every column's network for every unit."""
    columns, hidden, _ = model.hidden.shape
    active = torch.relu((x @ model.hidden.flatten(0, 1).T).view(len(x), columns, hidden) + model.bias)
    return torch.einsum("rch,coh->rco", active, model.head) + model.intercept


def _start(axes: int, hidden: int, goal: Tensor, task: Task, seed: int) -> Weights:
    """The same random hidden layer for every column; head 0, intercept the prior."""
    columns, outputs = goal.shape[1:]
    drawn = torch.randn(hidden, axes, generator=torch.Generator().manual_seed(seed)) * (2 / max(axes, 1)) ** 0.5
    parts = drawn.repeat(columns, 1, 1), torch.zeros(columns, hidden), torch.zeros(columns, outputs, hidden)
    return Weights(*(part.clone().requires_grad_(True) for part in (*parts, log_prior(goal, task))))
