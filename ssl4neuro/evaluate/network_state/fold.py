"""Stage two in one outer fold: head, logistic regression and baselines, fitted, calibrated, scored (network_state.md §5)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.features import Features, Rows
from ssl4neuro.evaluate.network_state.baselines import baseline_features
from ssl4neuro.evaluate.network_state.calibrate import calibrated
from ssl4neuro.evaluate.network_state.compact import Compact, Fitted, StageTwoFeatures, compact_features
from ssl4neuro.evaluate.network_state.head import HeadScorer
from ssl4neuro.evaluate.network_state.items import scan_table
from ssl4neuro.evaluate.network_state.logistic import PENALTIES, LogisticScorer
from ssl4neuro.evaluate.network_state.part import Part, make_part
from ssl4neuro.heads.network_state import HeadConfig

HEAD, LOGISTIC = "network state", "logistic"
IDENTITY = ["subject", "session", "run", "state", "network", "component", "site"]


@dataclass(frozen=True)
class StageTwo:
    """The classifier on top of the encoders.

    Attributes:
        heads: one per network, as in the paper, or one for all with a code for the network.
        atlas: regions of the compact features: `dosenbach` (160), `power` (264), `seitzman` (300), or a label image.
        components: of the PCA of the regions.
        penalties: values of scikit-learn's C for the logistic regression.
    """

    head: HeadConfig = field(default_factory=HeadConfig)
    heads: Fitted = "per network"
    atlas: str = "dosenbach"
    components: int = 20
    penalties: tuple[float, ...] = PENALTIES

    def __post_init__(self) -> None:
        if self.components < 1 or not self.penalties or min(self.penalties) <= 0:
            raise ValueError("stage_two: components must be 1 or more and penalties above 0")


@dataclass(frozen=True)
class InnerSplit:
    """An encoder trained on `train`, which has not seen the subjects of `held`; both lie within the outer training rows.

    Attributes:
        embedding: by the inner encoder; only the rows of `train` and `held` are read.
    """

    train: Int[np.ndarray, "train"]
    held: Int[np.ndarray, "held"]
    embedding: Float[np.ndarray, "items dim"]


class FoldScores(NamedTuple):
    """What one outer fold says about the subjects that it holds out.

    Attributes:
        scores: a line per held-out component and model, and one per scan and model with the network `whole brain`.
        embeddings: the held-out components in this fold's own space.
        scans: the held-out scans with their nuisance variables.
        record: JSON-ready: what was chosen.
    """

    scores: pd.DataFrame
    embeddings: pd.DataFrame
    scans: pd.DataFrame
    record: dict[str, Any]


def score_fold(
    cohort: Cohort,
    items: pd.DataFrame,
    embedding: Float[np.ndarray, "items dim"],
    train: Int[np.ndarray, "train"],
    test: Int[np.ndarray, "test"],
    inner: Sequence[InnerSplit],
    *,
    repeat: int = 0,
    fold: int = 0,
    config: StageTwo = StageTwo(),
    change: Float[np.ndarray, "items part"] | None = None,
    seed: int = 0,
) -> FoldScores:
    """Scores of one outer fold.

    Args:
        items: see `study_items`; all positions below are positions in it.
        embedding: by the encoder of this fold, which has seen `train` only; other rows than `train` and `test` are not read.
        inner: without one, nothing is chosen or calibrated.
        change: the part of the embedding that holds the state (preset `change_aware`), for its distance before and after.

    Raises:
        UserError: a subject on both sides, or a state that no training row has.
    """
    _check(items, train, test, inner)
    compact = compact_features(cohort, items["row"].to_numpy(dtype=np.int64), config.atlas)
    scores, record = _models(items, compact, embedding, train, test, inner, config, seed, HEAD, LOGISTIC)
    logistic = LogisticScorer(config.heads, config.penalties)
    for name, features in baseline_features(cohort, items, compact, config.components, config.heads).items():
        parts = [make_part(items, features, split.train, split.held) for split in inner]
        options, held = logistic.choose(parts)
        part = make_part(items, features, train, test)
        lines, platt = calibrated(items, test, logistic.score(part, options), [s.held for s in inner], held)
        scores.append(lines.assign(model=name, baseline=True))
        record[name] = {**options, "platt": platt}
    place = {"repeat": repeat, "fold": fold}
    held_out = items.iloc[test]
    vectors = held_out[IDENTITY].assign(**place, embedding=list(embedding[test].astype(np.float32)))
    if change is not None:
        vectors["change"] = list(change[test].astype(np.float32))
    return FoldScores(
        _ordered(pd.concat(scores, ignore_index=True).assign(**place)),
        vectors.reset_index(drop=True),
        scan_table(cohort, held_out.reset_index(drop=True)).assign(**place),
        {**place, "models": record, "train_subjects": int(items["subject"].iloc[train].nunique()),
         "test_subjects": int(held_out["subject"].nunique())},
    )  # fmt: skip


def score_encoder(
    cohort: Cohort,
    items: pd.DataFrame,
    embedding: Float[np.ndarray, "items dim"],
    train: Int[np.ndarray, "train"],
    test: Int[np.ndarray, "test"],
    inner: Sequence[InnerSplit],
    *,
    model: str,
    baseline: bool = False,
    repeat: int = 0,
    fold: int = 0,
    config: StageTwo = StageTwo(),
    seed: int = 0,
) -> pd.DataFrame:
    """Scores of another encoder (maps alone, another objective) by logistic regression in the same fold; see `score_fold`."""
    _check(items, train, test, inner)
    compact = compact_features(cohort, items["row"].to_numpy(dtype=np.int64), config.atlas)
    scores, _ = _models(items, compact, embedding, train, test, inner, config, seed, None, model)
    return _ordered(pd.concat(scores, ignore_index=True).assign(baseline=baseline, repeat=repeat, fold=fold))


def _models(
    items: pd.DataFrame,
    compact: Compact,
    embedding: np.ndarray,
    train: Rows,
    test: Rows,
    inner: Sequence[InnerSplit],
    config: StageTwo,
    seed: int,
    head_name: str | None,
    logistic_name: str,
) -> tuple[list[pd.DataFrame], dict[str, Any]]:
    """Lines and choices of the head (unless it has no name) and the logistic regression."""

    def part_of(vectors: np.ndarray, rows: Rows, others: Rows) -> Part:
        networks = items["network"].to_numpy(dtype=str)
        features: Features = StageTwoFeatures(compact, networks, vectors, components=config.components, fitted=config.heads)
        return make_part(items, features, rows, others, embedded=vectors.shape[1])

    parts = [part_of(split.embedding, split.train, split.held) for split in inner]
    outer, held_rows = part_of(embedding, train, test), [split.held for split in inner]
    logistic = LogisticScorer(config.heads, config.penalties)
    options, held = logistic.choose(parts)
    lines, platt = calibrated(items, test, logistic.score(outer, options), held_rows, held)
    found = [lines.assign(model=logistic_name, baseline=False)]
    record: dict[str, Any] = {logistic_name: {**options, "platt": platt}}
    if head_name is not None:
        head = HeadScorer(config.head, config.heads)
        options, held = head.choose(parts, float(options["weight"]), seed)
        lines, platt = calibrated(items, test, head.score(outer, options, seed), held_rows, held)
        found.insert(0, lines.assign(model=head_name, baseline=False))
        record = {head_name: {**options, "platt": platt}, **record}
    return found, record


def _check(items: pd.DataFrame, train: Rows, test: Rows, inner: Sequence[InnerSplit]) -> None:
    subject, y = items["subject"].to_numpy(dtype=str), items["y"].to_numpy()
    sides = [("outer fold", train, test), *(("inner split", split.train, split.held) for split in inner)]
    for name, left, right in sides:
        both = set(subject[left]) & set(subject[right])
        if both:
            raise UserError(f"{name}: {len(both)} subjects train and are tested (e.g. {min(both)}); divide by subject")
        if len(np.unique(y[left])) < 2:
            raise UserError(f"{name}: all training rows have one state; use more subjects or fewer folds")
    for split in inner:
        if not (np.isin(split.train, train).all() and np.isin(split.held, train).all()):
            raise UserError("inner split: reaches beyond the outer training rows; divide those alone")


def _ordered(scores: pd.DataFrame) -> pd.DataFrame:
    return scores[["repeat", "fold", "model", "baseline", *IDENTITY, "logit", "probability"]]
