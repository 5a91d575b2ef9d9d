"""What the probes that are trained by gradient share: inputs, losses and scores of many label columns at once.

Every column has parameters of its own and the columns' losses are summed, so that columns do not meet and a permutation costs
one more column.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.protocol import Scores
from ssl4neuro.evaluate.ridge import principal_axes


def leading_axes(
    train: Float[np.ndarray, "train dim"], test: Float[np.ndarray, "test dim"], axes: int
) -> tuple[Float[np.ndarray, "train axes"], Float[np.ndarray, "test axes"]]:
    """Both on the first principal axes of the standardised training rows, the first of which gets variance 1."""
    found = principal_axes(train, test)
    order = np.argsort(-found.power, kind="stable")[:axes]
    unit = np.sqrt(max(found.power.max(initial=0) / max(len(found.train), 1), 1e-12))
    return (found.train[:, order] / unit).astype(np.float32), (found.test[:, order] / unit).astype(np.float32)


def standardised(
    wanted: Float[Tensor, "units columns outputs"], task: Task
) -> tuple[Float[Tensor, "units columns outputs"], Float[Tensor, "columns outputs"], Float[Tensor, "columns outputs"]]:
    """What to fit, and the centre and scale that turn an answer into the target's units (0 and 1 for classes)."""
    if task != "regression":
        return wanted, torch.zeros(wanted.shape[1:]), torch.ones(wanted.shape[1:])
    centre, scale = wanted.mean(0), wanted.std(0, correction=0).clamp_min(1e-6)
    return (wanted - centre) / scale, centre, scale


def log_prior(goal: Float[Tensor, "units columns outputs"], task: Task) -> Float[Tensor, "columns outputs"]:
    """Output of a model that knows only how frequent the classes are; 0 in regression."""
    if task == "regression":
        return torch.zeros(goal.shape[1:])
    prior = goal.mean(0).clamp(0.5 / len(goal), 1 - 0.5 / len(goal))
    return torch.log(prior / (1 - prior)) if task == "binary" else torch.log(prior)


def column_loss(
    output: Float[Tensor, "units columns outputs"], goal: Float[Tensor, "units columns outputs"], task: Task
) -> Float[Tensor, "columns"]:
    """Half the squared error, or the log loss, summed over units."""
    if task == "regression":
        return (output - goal).square().sum((0, 2)) / 2
    if task == "binary":
        return F.binary_cross_entropy_with_logits(output, goal, reduction="none").sum((0, 2))
    return -(output.log_softmax(2) * goal).sum((0, 2))


def answer(output: Float[Tensor, "units columns outputs"], task: Task) -> Float[Tensor, "units columns outputs"]:
    """Probabilities, or values."""
    if task == "regression":
        return output
    return output.sigmoid() if task == "binary" else output.softmax(2)


def scores_of(
    train: Float[Tensor, "train columns outputs"],
    test: Float[Tensor, "test columns outputs"],
    wanted: Float[Tensor, "train columns outputs"],
    task: Task,
) -> Scores:
    """Outputs of the training and test units as the protocol asks: the class prior and the intercept taken off.

    `wanted` are the labels as they were given, in the target's units.
    """
    goal, centre, scale = standardised(wanted, task)
    if task == "regression":
        middle = train.mean(0)
        return Scores(((test - middle) * scale).numpy(), (middle * scale + centre).numpy())
    prior = log_prior(goal, task)
    pooled = pooled_scores((train - prior).numpy(), (test - prior).numpy())
    return pooled._replace(probability=answer(test, task).numpy())


def pooled_scores(train: Float[np.ndarray, "train columns outputs"], test: Float[np.ndarray, "test columns outputs"]) -> Scores:
    """Test scores from the training rows' mean and in units of their spread; the mean goes into the offset."""
    if train.shape[2] > 1:  # only differences between classes mean anything
        train, test = train - train.mean(2, keepdims=True), test - test.mean(2, keepdims=True)
    middle = train.mean(0)
    spread = np.maximum(np.sqrt(np.square(train - middle).mean((0, 2))), 1e-10)[:, None]
    return Scores(((test - middle) / spread).astype(np.float32), (middle / spread).astype(np.float32))
