"""Attention probe: a subject's clips weighed by what they say, then a linear read-out (Ilse, Tomczak & Welling, ICML 2018).

A scar shows in some slices only; the mean over a heart dilutes it. Gated attention learns which clips count,
a_k ∝ exp(w · tanh(V x_k) ⊙ sigmoid(U x_k)), on few principal axes of the training clips, with the penalty chosen in inner folds
by subject. All label columns and penalties are trained at once, each with parameters of its own, so a permutation costs one
more column; still far more than with the linear probe.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl4neuro.evaluate.folds import inner_folds
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.protocol import Apply, Scores, joined, targets
from ssl4neuro.evaluate.trained import answer, column_loss, leading_axes, log_prior, scores_of, standardised

PENALTIES = (10.0, 1.0, 0.1)  # of half the squared weights, against the summed loss; strongest first
NUMBERS_AT_ONCE = 4_000_000
RATE = 0.05  # of Adam


class Bags(NamedTuple):
    """Clips of each unit on principal axes; 0 where there is none."""

    x: Float[Tensor, "units clips axes"]
    there: Bool[Tensor, "units clips"]


class Weights(NamedTuple):
    """One model per column."""

    values: Float[Tensor, "columns hidden axes"]
    gates: Float[Tensor, "columns hidden axes"]
    attention: Float[Tensor, "columns hidden"]
    head: Float[Tensor, "columns outputs axes"]
    intercept: Float[Tensor, "columns outputs"]


class AttentionProbe:
    """Gated attention over the clips of a unit, then logistic or linear regression.

    Args:
        penalties: weight decays to choose from, strongest first.
        inner: folds by subject for that choice.
        axes: principal axes of the training clips that are used.
        hidden: width of the attention.
        steps: of Adam, on all training units at once.
    """

    bags = True  # takes [units, clips, dim], NaN where a unit has fewer clips
    columns_at_once = 50  # of permuted labels, between two signs of life

    def __init__(
        self, penalties: tuple[float, ...] = PENALTIES, inner: int = 3, axes: int = 32, hidden: int = 8, steps: int = 120
    ) -> None:
        self.penalties, self.inner, self.axes, self.hidden, self.steps = penalties, inner, axes, hidden, steps

    def prepare(
        self,
        train: Float[np.ndarray, "train *clips dim"],
        test: Float[np.ndarray, "test *clips dim"],
        groups: Int[np.ndarray, "train"],
        task: Task,
        classes: int,
        seed: int,
    ) -> Apply:
        """See `Probe`. Where every training unit has one clip there is nothing to weigh, and it is the linear probe."""
        if train.ndim == 2 or (~np.isnan(train).all(2)).sum(1).max(initial=0) <= 1:
            flat = [part if part.ndim == 2 else bag_means(part) for part in (train, test)]
            return LinearProbe().prepare(flat[0], flat[1], groups, task, classes, seed)
        outer = make_bags(train, test, self.axes)
        splits = inner_folds(groups, self.inner, seed) if len(self.penalties) > 1 else []
        inner = [(fold, *make_bags(train[fold.train], train[fold.test], self.axes)) for fold in splits]

        def apply(labels: np.ndarray) -> Scores:
            block = max(1, NUMBERS_AT_ONCE // (len(self.penalties) * outer[0].there.numel() * self.hidden))
            parts = []
            for start in range(0, labels.shape[1], block):
                wanted = torch.from_numpy(targets(labels[:, start : start + block], task, classes))
                penalty = self._choose(inner, wanted, task, seed)
                model = self._fit(outer[0], wanted, penalty, task, seed)
                with torch.no_grad():
                    parts.append(scores_of(forward(model, outer[0]), forward(model, outer[1]), wanted, task))
            return joined(parts)

        return apply

    def _choose(self, inner: list, wanted: Float[Tensor, "train columns outputs"], task: Task, seed: int) -> Tensor:
        """Penalty of every column: the least squared error (of probabilities) on the inner folds, the stronger where equal."""
        columns = wanted.shape[1]
        grid = torch.tensor(self.penalties)
        if not inner:
            return grid[len(grid) // 2].expand(columns)
        error = torch.zeros(len(grid), columns)
        for fold, left, right in inner:
            repeated = wanted[torch.from_numpy(fold.train)].repeat(1, len(grid), 1)
            model = self._fit(left, repeated, grid.repeat_interleave(columns), task, seed)
            _, centre, scale = standardised(repeated, task)
            guess = answer(forward(model, right), task) * scale + centre
            truth = wanted[torch.from_numpy(fold.test)].repeat(1, len(grid), 1)
            error += (guess - truth).square().sum((0, 2)).view(len(grid), columns)
        return grid[error.argmin(0)]

    def _fit(
        self,
        bags: Bags,
        wanted: Float[Tensor, "units columns outputs"],
        penalty: Float[Tensor, "columns"],
        task: Task,
        seed: int,
    ) -> Weights:
        """Models of the standardised target."""
        goal = standardised(wanted, task)[0]
        model = _start(bags.x.shape[2], self.hidden, goal, task, seed)
        optimiser = torch.optim.Adam(list(model), lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        with torch.enable_grad():
            for _ in range(self.steps):
                optimiser.zero_grad()
                decay = sum(part.square().flatten(1).sum(1) for part in model[:4]) / 2
                loss = (column_loss(forward(model, bags), goal, task) + penalty * decay).sum()  # columns do not meet
                loss.backward()
                optimiser.step()
                schedule.step()
        return Weights(*(part.detach() for part in model))


def bag_means(bags: Float[np.ndarray, "units clips dim"]) -> Float[np.ndarray, "units dim"]:
    """Mean over the clips there are; 0 for a unit without any."""
    there = ~np.isnan(bags).all(2)
    return np.nan_to_num(bags).sum(1) / np.maximum(there.sum(1), 1)[:, None]


def make_bags(
    train: Float[np.ndarray, "train clips dim"], test: Float[np.ndarray, "test clips dim"], axes: int
) -> tuple[Bags, Bags]:
    """Both on the first principal axes of the standardised training clips, whose first axis gets variance 1."""
    masks = [~np.isnan(part).all(2) for part in (train, test)]
    found = leading_axes(train[masks[0]], test[masks[1]], axes)
    made = []
    for mask, flat in zip(masks, found, strict=True):
        x = np.zeros((*mask.shape, flat.shape[1]), dtype=np.float32)
        x[mask] = flat
        mask = mask.copy()
        mask[~mask.any(1), 0] = True  # a unit without clips is an average one
        made.append(Bags(torch.from_numpy(x), torch.from_numpy(mask)))
    return made[0], made[1]


def forward(model: Weights, bags: Bags) -> Float[Tensor, "units columns outputs"]:
    """Output of every column's model for every unit."""
    return torch.einsum("rcd,cod->rco", pool(model, bags), model.head) + model.intercept


def pool(model: Weights, bags: Bags) -> Float[Tensor, "units columns axes"]:
    """Attention-weighted mean of each unit's clips."""
    flat = bags.x.flatten(0, 1)
    shape = (*bags.there.shape, *model.attention.shape)
    hidden = torch.tanh(flat @ model.values.flatten(0, 1).T) * torch.sigmoid(flat @ model.gates.flatten(0, 1).T)
    score = (hidden.view(shape) * model.attention).sum(3).masked_fill(~bags.there[:, :, None], -torch.inf)
    return score.softmax(1).transpose(1, 2) @ bags.x


def _start(axes: int, hidden: int, goal: Tensor, task: Task, seed: int) -> Weights:
    """The same small random attention for every column; head 0, intercept the prior."""
    columns, outputs = goal.shape[1:]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(2, hidden, axes, generator=generator) / max(axes, 1) ** 0.5
    attention = torch.randn(hidden, generator=generator) / hidden**0.5
    parts = (
        drawn[0].repeat(columns, 1, 1), drawn[1].repeat(columns, 1, 1), attention.repeat(columns, 1),
        torch.zeros(columns, outputs, axes), log_prior(goal, task),
    )  # fmt: skip
    return Weights(*(part.clone().requires_grad_(True) for part in parts))
