"""Folds by subject. Test folds hold only subjects that the encoder has not seen; seen ones may train the probe."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Shaped

from ssl4neuro.errors import UserError

NAMES_SHOWN = 5


class Fold(NamedTuple):
    """Row indices of one outer fold."""

    train: Int[np.ndarray, "train"]
    test: Int[np.ndarray, "test"]


@dataclass(frozen=True)
class Firewall:
    """Which rows may be tested, and what to print about it."""

    testable: Bool[np.ndarray, "rows"]
    stamp: str | None  # set when seen subjects are tested on request


def firewall(subjects: Shaped[np.ndarray, "rows"], seen: Bool[np.ndarray, "rows"], allow_overlap: bool) -> Firewall:
    """Rows of unseen subjects; on request also the others, with a stamp that stays with the result.

    Raises:
        UserError: fewer than two subjects are unseen and overlap is not allowed.
    """
    everyone = np.unique(subjects)
    overlap = np.unique(subjects[seen])  # one seen row makes the subject seen
    if allow_overlap:
        stamp = f"overlap: {len(overlap)} of {len(everyone)} test subjects were seen in pretraining" if len(overlap) else None
        return Firewall(np.ones(len(subjects), dtype=bool), stamp)
    unseen = len(everyone) - len(overlap)
    if len(everyone) < 2:
        raise UserError(f"subjects: only one subject ({everyone[0]}) has a label; a probe needs at least two")
    if unseen < 2:
        shown = ", ".join(map(str, overlap[:NAMES_SHOWN])) + (", ..." if len(overlap) > NAMES_SHOWN else "")
        raise UserError(
            f"subjects: {len(overlap)} of {len(everyone)} labelled subjects were seen in pretraining ({shown}), so {unseen} can"
            " be tested and 2 are needed; pretrain with more held-out subjects, use another cohort, or stamp the result with"
            " --allow-overlap"
        )
    return Firewall(~np.isin(subjects, overlap), None)


def subject_folds(
    subjects: Int[np.ndarray, "rows"],
    testable: Bool[np.ndarray, "rows"],
    folds: int,
    seed: int,
    strata: Int[np.ndarray, "rows"] | None = None,
) -> list[Fold]:
    """Each testable subject is in exactly one test fold; all other subjects train.

    Args:
        subjects: code of each row's subject.
        testable: constant within a subject.
        folds: wanted number; fewer (leave one subject out) when there are fewer testable subjects.
        strata: label or site codes, constant within a subject, to be spread evenly over the folds.
    """
    codes, first = np.unique(subjects[testable], return_index=True)
    layer = np.zeros(len(codes), dtype=np.int64) if strata is None else strata[testable][first]
    rng = np.random.default_rng([seed, 0xF01D])
    order = rng.permutation(len(codes))
    order = order[np.argsort(layer[order], kind="stable")]
    fold_of = np.empty(len(codes), dtype=np.int64)
    fold_of[order] = np.arange(len(codes)) % min(folds, len(codes))
    made = []
    for fold in range(fold_of.max() + 1):
        test = np.isin(subjects, codes[fold_of == fold])
        made.append(Fold(np.flatnonzero(~test), np.flatnonzero(test)))
    return made


def site_folds(
    subjects: Int[np.ndarray, "rows"], sites: Shaped[np.ndarray, "rows"], testable: Bool[np.ndarray, "rows"]
) -> list[Fold]:
    """Leave one site out. A subject scanned at several sites is never on both sides.

    Raises:
        UserError: fewer than two sites.
    """
    names = np.unique(sites)
    if len(names) < 2:
        raise UserError(f"site: all rows are from one site ({names[0]}); leave-site-out needs two")
    made = []
    for name in names:
        test = np.flatnonzero((sites == name) & testable)
        train = np.flatnonzero((sites != name) & ~np.isin(subjects, subjects[test]))
        if len(test) and len(train):
            made.append(Fold(train, test))
    return made


def inner_folds(groups: Int[np.ndarray, "rows"], folds: int, seed: int) -> list[Fold]:
    """Subject folds of the training rows, for choosing C or k. Labels have no part in it, so permuted ones may share them."""
    if len(np.unique(groups)) < 2:
        return []
    return subject_folds(groups, np.ones(len(groups), dtype=bool), folds, seed)
