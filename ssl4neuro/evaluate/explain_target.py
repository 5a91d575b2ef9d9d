"""The direction of an embedding that stands for a label: a linear probe, fitted without the subject that it explains.

Folds are those of `probe`: each unseen subject is tested once, all others train, subjects that the encoder has seen among
them. A probe is fitted for each network apart, as in methods/network_state.md section 5, unless the label is the network.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.crossval import Settings, make_folds
from ssl4neuro.evaluate.folds import Fold, subject_folds
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.metrics import METRICS, Held
from ssl4neuro.evaluate.problem import Problem, pose
from ssl4neuro.evaluate.statistics import Interval, bootstrap_interval

EVERY = "all"  # the group where rows are not told apart by network


@dataclass(frozen=True)
class Question:
    """What is explained, of which rows. Rows, labels and groups are in one order."""

    target: str | None
    rows: Int[np.ndarray, "rows"]  # of the cohort, of all subjects; only `tested` ones are explained
    tested: np.ndarray  # bool, rows of unseen subjects
    subjects: np.ndarray  # names
    groups: np.ndarray  # network, or `all`
    classes: np.ndarray  # name of each row's class; `all` without a target or with a numeric one
    problem: Problem | None
    folds: tuple[Fold, ...] = ()
    notes: tuple[str, ...] = ()


def ask(
    cohort: Cohort,
    seen: set[str],
    *,
    target: str | None = None,
    networks: tuple[str, ...] = (),
    subjects: tuple[str, ...] = (),
    folds: int = 5,
    seed: int = 0,
) -> Question:
    """Choose the rows, the labels and the folds.

    Args:
        cohort: prepared.
        seen: subjects that the encoder has seen; they are never explained.
        target: column of the rows, sessions.tsv or participants.tsv; None: no probe.
        networks: only rows of these.
        subjects: explain these only; by default everyone unseen.
        folds: over unseen subjects.
        seed: of the folds.

    Raises:
        UserError: nobody unseen, unknown subject or network, or labels that cannot be probed.
    """
    index = cohort.index
    names = index["subject"].to_numpy(dtype=str)
    network = index["network"].to_numpy(dtype=str) if "network" in index else np.full(len(index), "")
    chosen = _chosen(cohort, names, network, seen, networks, subjects)
    own = np.isin(network, networks) if networks else np.ones(len(index), bool)
    rows = np.flatnonzero(own)
    if target is None:
        groups = np.where(network[rows] == "", EVERY, network[rows])
        codes = np.unique(names[rows], return_inverse=True)[1]
        made = subject_folds(codes, ~np.isin(names[rows], list(seen)), folds, seed)
        return Question(None, rows, chosen[rows], names[rows], groups, np.full(len(rows), EVERY), None, tuple(made))
    table = index[[c for c in index if c in (*cohort.row_columns, *cohort.places)]].assign(seen=np.isin(names, list(seen)))
    values = pd.Series(cohort.labels(target), dtype=object)[rows].reset_index(drop=True).infer_objects()
    problem = pose(table.iloc[rows].reset_index(drop=True), values, target, "sample")
    (made,) = make_folds(problem, Settings(folds=folds, seed=seed))
    rows = rows[problem.kept]
    together = target == "network" or not (network[rows] != "").any()
    groups = np.full(len(rows), EVERY) if together else np.where(network[rows] == "", "unnamed", network[rows])
    classes = (
        np.array([problem.classes[code] for code in problem.y.astype(int)]) if problem.classes else np.full(len(rows), EVERY)
    )
    tested = problem.wall.testable & chosen[rows]
    return Question(target, rows, tested, names[rows], groups, classes, problem, tuple(made), problem.notes)


def _chosen(
    cohort: Cohort, names: np.ndarray, network: np.ndarray, seen: set[str], networks: tuple[str, ...], subjects: tuple[str, ...]
) -> np.ndarray:
    unseen = sorted(set(names) - seen)
    if len(unseen) < 2:
        raise UserError(
            f"{cohort.path}: {len(unseen)} of {len(set(names))} subjects are unseen by this run; an explanation needs two, so"
            " pretrain with more held-out subjects (split.holdout) or use another cohort"
        )
    for word in subjects:
        if word not in unseen:
            why = "was seen in pretraining" if word in seen else "is not in this cohort"
            raise UserError(f"--subjects: {word} {why}; only unseen subjects are explained")
    for word in networks:
        if word not in network:
            have = ", ".join(sorted(set(network) - {""})) or "none"
            raise UserError(f"--network: no component of {cohort.path} is of '{word}'; there are {have}")
    wanted = np.isin(names, subjects or unseen)
    return wanted & np.isin(network, networks) if networks else wanted


@dataclass(frozen=True)
class Answer:
    """What the probes make of an embedding."""

    direction: Float[np.ndarray, "rows dim"]  # 0 where a row is not tested
    skill: dict[str, tuple[str, Interval]]  # by group: name and interval of the metric on held-out subjects


def read_out(question: Question, vectors: Float[np.ndarray, "rows dim"], seed: int = 0) -> Answer:
    """Fit the probes of every fold and group; the direction of each tested row, and how well the probes do.

    `embedding · direction` is the score of the row's own class, in standard deviations of the score over the training rows: the
    logit against the other class (two classes) or the mean of the others; of a number, the prediction times how far the row
    lies from the training mean (in standard deviations).

    Raises:
        UserError: a group in which a training fold lacks a class.
    """
    problem = question.problem
    assert problem is not None
    direction = np.zeros_like(vectors, dtype=np.float32)
    outputs = len(problem.classes) if problem.task == "multiclass" else 1
    scores = np.zeros((len(vectors), outputs))
    offset = np.zeros((len(vectors), outputs))
    for group in np.unique(question.groups):
        for fold in question.folds:
            train, test = (part[question.groups[part] == group] for part in (fold.train, fold.test))
            if not len(test):
                continue
            if len(np.unique(problem.y[train])) < max(2, len(problem.classes)):
                raise UserError(
                    f"target: a training fold of network '{group}' lacks a value of '{problem.target}'; use more subjects, or"
                    " leave the network out with --network"
                )
            weights, scores[test], offset[test] = _fit(problem, vectors, train, test, seed)
            direction[test] = _own(problem, train, test, weights)
    return Answer(direction, _skill(question, scores, offset))


def _fit(
    problem: Problem, vectors: np.ndarray, train: np.ndarray, test: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [dim, outputs] of the fold's probe, read off its scores one spread from the mean, and the test rows' scores."""
    x = vectors[train].astype(np.float64)
    mean, spread = x.mean(0), np.maximum(x.std(0), 1e-12)
    corners = np.concatenate([vectors[test], mean[None], mean + np.diag(spread)])
    apply = LinearProbe().prepare(x, corners, problem.subjects[train], problem.task, len(problem.classes), seed)
    found = apply(problem.y[train][:, None])
    values = found.values[:, 0].astype(np.float64)
    weights = (values[len(test) + 1 :] - values[len(test)]) / spread[:, None]
    return weights, values[: len(test)], np.broadcast_to(found.offset[0], (len(test), values.shape[1]))


def _own(problem: Problem, train: np.ndarray, test: np.ndarray, weights: np.ndarray) -> Float[np.ndarray, "test dim"]:
    y = problem.y[test]
    if problem.task == "multiclass":
        count = weights.shape[1]
        own = weights[:, y.astype(int)]
        return ((own - (weights.sum(1, keepdims=True) - own) / (count - 1)).T).astype(np.float32)
    if problem.task == "binary":
        sign = np.where(y == 1, 1.0, -1.0)
    else:
        sign = (y - problem.y[train].mean()) / problem.y[train].std()
    return (sign[:, None] * weights[:, 0]).astype(np.float32)


def _skill(question: Question, scores: np.ndarray, offset: np.ndarray) -> dict[str, tuple[str, Interval]]:
    problem = question.problem
    assert problem is not None
    name, metric = next(iter(METRICS[problem.task].items()))
    found = {}
    for group in np.unique(question.groups):
        rows = np.flatnonzero(question.tested & (question.groups == group))
        if not len(rows):
            continue
        total = scores[rows] + offset[rows]
        if problem.task == "regression":
            decision = total[:, 0]
        else:
            decision = (total[:, 0] > 0).astype(np.int64) if total.shape[1] == 1 else total.argmax(1)
        held = Held(problem.y[rows], scores[rows], decision)
        found[str(group)] = (
            name,
            bootstrap_interval(partial(metric.function, held), problem.subjects[rows], bounded=metric.bounded),
        )
    return found
