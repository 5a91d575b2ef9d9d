"""Attention probe: a subject's clips weighed by what they say, then a linear read-out (Ilse, Tomczak & Welling, ICML 2018).

A scar shows in some slices only; the mean over a heart dilutes it. Gated attention learns which clips count,
a_k ∝ exp(w · tanh(V x_k) ⊙ sigmoid(U x_k)), on few principal axes of the training clips, with the penalty chosen in inner folds
by subject. All label columns and penalties are trained at once, each with parameters of its own, so a permutation costs one
more column; still far more than with the linear probe.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ssl4neuro.evaluate.folds import inner_folds
from ssl4neuro.evaluate.linear import LinearProbe, principal_axes
from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.protocol import Apply, Scores, targets

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
        outputs = classes if task == "multiclass" else 1

        def apply(labels: np.ndarray) -> Scores:
            block = max(1, NUMBERS_AT_ONCE // (len(self.penalties) * outer[0].there.numel() * self.hidden))
            parts = []
            for start in range(0, labels.shape[1], block):
                wanted = torch.from_numpy(targets(labels[:, start : start + block], task, classes))
                penalty = self._choose(inner, wanted, task, seed)
                model, centre, scale = self._fit(outer[0], wanted, penalty, task, seed)
                parts.append(_scores(model, *outer, wanted, centre, scale, task))
            values = np.concatenate([p.values for p in parts], axis=1).reshape(len(test), -1, outputs)
            return Scores(values, np.concatenate([p.offset for p in parts]))

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
            model, centre, scale = self._fit(left, repeated, grid.repeat_interleave(columns), task, seed)
            guess = _answer(forward(model, right), task) * scale + centre
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
    ) -> tuple[Weights, Tensor, Tensor]:
        """Models, and what turns their output into the target's units (0 and 1 for classes)."""
        centre, scale = torch.zeros(wanted.shape[1:]), torch.ones(wanted.shape[1:])
        if task == "regression":
            centre, scale = wanted.mean(0), wanted.std(0, correction=0).clamp_min(1e-6)
        goal = (wanted - centre) / scale
        model = _start(bags.x.shape[2], self.hidden, goal, task, seed)
        optimiser = torch.optim.Adam(list(model), lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        with torch.enable_grad():
            for _ in range(self.steps):
                optimiser.zero_grad()
                decay = sum(part.square().flatten(1).sum(1) for part in model[:4]) / 2
                loss = (_loss(forward(model, bags), goal, task) + penalty * decay).sum()  # columns do not meet
                loss.backward()
                optimiser.step()
                schedule.step()
        return Weights(*(part.detach() for part in model)), centre, scale


def bag_means(bags: Float[np.ndarray, "units clips dim"]) -> Float[np.ndarray, "units dim"]:
    """Mean over the clips there are; 0 for a unit without any."""
    there = ~np.isnan(bags).all(2)
    return np.nan_to_num(bags).sum(1) / np.maximum(there.sum(1), 1)[:, None]


def make_bags(
    train: Float[np.ndarray, "train clips dim"], test: Float[np.ndarray, "test clips dim"], axes: int
) -> tuple[Bags, Bags]:
    """Both on the first principal axes of the standardised training clips, whose first axis gets variance 1."""
    masks = [~np.isnan(part).all(2) for part in (train, test)]
    found = principal_axes(train[masks[0]], test[masks[1]])
    order = np.argsort(-found.power, kind="stable")[:axes]
    unit = np.sqrt(max(found.power.max(initial=0) / max(len(found.train), 1), 1e-12))
    made = []
    for mask, flat in zip(masks, (found.train, found.test), strict=True):
        x = np.zeros((*mask.shape, len(order)), dtype=np.float32)
        x[mask] = flat[:, order] / unit
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
        torch.zeros(columns, outputs, axes), _log_prior(goal, task),
    )  # fmt: skip
    return Weights(*(part.clone().requires_grad_(True) for part in parts))


def _log_prior(goal: Tensor, task: Task) -> Float[Tensor, "columns outputs"]:
    if task == "regression":
        return torch.zeros(goal.shape[1:])
    prior = goal.mean(0).clamp(0.5 / len(goal), 1 - 0.5 / len(goal))
    return torch.log(prior / (1 - prior)) if task == "binary" else torch.log(prior)


def _loss(logits: Tensor, goal: Tensor, task: Task) -> Float[Tensor, "columns"]:
    """Summed over units."""
    if task == "regression":
        return (logits - goal).square().sum((0, 2)) / 2
    if task == "binary":
        return F.binary_cross_entropy_with_logits(logits, goal, reduction="none").sum((0, 2))
    return -(logits.log_softmax(2) * goal).sum((0, 2))


def _answer(logits: Tensor, task: Task) -> Tensor:
    if task == "regression":
        return logits
    return logits.sigmoid() if task == "binary" else logits.softmax(2)


def _scores(
    model: Weights, train: Bags, test: Bags, wanted: Tensor, centre: Tensor, scale: Tensor, task: Task
) -> Scores:  # fmt: skip
    """As the protocol asks: from the training units' mean, in units of their spread; the class prior is taken off."""
    with torch.no_grad():
        left, right = forward(model, train), forward(model, test)
    if task == "regression":
        middle = left.mean(0)
        return Scores(((right - middle) * scale).numpy(), (middle * scale + centre).numpy())
    left, right = left - _log_prior(wanted, task), right - _log_prior(wanted, task)
    if left.shape[2] > 1:  # only differences between classes mean anything
        left, right = left - left.mean(2, keepdim=True), right - right.mean(2, keepdim=True)
    middle = left.mean(0)
    spread = (left - middle).square().mean((0, 2)).sqrt().clamp_min(1e-10)[:, None]
    return Scores(((right - middle) / spread).numpy(), (middle / spread).numpy())
