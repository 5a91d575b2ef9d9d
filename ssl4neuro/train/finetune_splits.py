"""Who trains a head and who tests it: folds of subjects that no encoder has seen, and the subjects of few-label runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ssl4neuro.data.splits import Split, SplitConfig, crossfit_splits, ordered, split_subjects
from ssl4neuro.errors import UserError
from ssl4neuro.train.finetune_config import FinetuneConfig


def splits_for(
    config: FinetuneConfig, sites: Mapping[str, str], strata: Mapping[str, str], seen: Sequence[str]
) -> tuple[list[Split], str]:
    """One split per fold (or one), and the stamp of a result that was tested on subjects of the pretraining.

    Args:
        sites: site of every subject that has masks.
        strata: what is spread evenly over folds and validation.
        seen: subjects that shaped the encoders. They may train the head; they test it only where `allow_overlap` says so.

    Raises:
        UserError: nobody, or too few, are left to test on.
    """
    unseen = {s: site for s, site in sites.items() if s not in set(seen)}
    if len(unseen) < len(sites) and config.allow_overlap:
        known = len(sites) - len(unseen)
        stamp = f"OVERLAP: {known} of {len(sites)} subjects shaped the encoders and were tested on all the same"
        return _splits(config, sites, sites, strata), stamp
    if not unseen or (config.folds and len(unseen) < config.folds):
        names = ", ".join(sorted(set(sites) & set(seen))[:4])
        raise UserError(
            f"--init {config.init}: {len(sites) - len(unseen)} of the {len(sites)} subjects with masks were seen in "
            f"pretraining ({names}{', ...' if len(seen) > 4 else ''}), so that too few are left to test on; pretrain with "
            "--crossfit, or with a larger split.holdout, or add --allow-overlap, which stamps the result"
        )
    return _splits(config, sites, unseen, strata), ""


def _splits(
    config: FinetuneConfig, sites: Mapping[str, str], testable: Mapping[str, str], strata: Mapping[str, str]
) -> list[Split]:
    rule = replace(config.split, stratify=None) if strata else config.split
    if config.folds:
        tested = [split.holdout for split in crossfit_splits(testable, config.folds, rule, config.seed, strata)]
    elif len(testable) < len(sites) and not (rule.hold_subjects or rule.hold_sites):
        count = min(len(testable), max(1, round(rule.holdout * len(sites))))
        tested = [tuple(ordered(sorted(testable), config.seed, strata)[:count])]
    else:
        return [_checked(split_subjects(sites, rule, config.seed, strata), testable)]
    return [_held(config, sites, held, strata) for held in tested]


def _held(config: FinetuneConfig, sites: Mapping[str, str], held: tuple[str, ...], strata: Mapping[str, str]) -> Split:
    rule = SplitConfig(validation=config.split.validation, hold_subjects=held)
    return split_subjects(sites, rule, config.seed, strata)


def _checked(split: Split, testable: Mapping[str, str]) -> Split:
    seen = sorted(set(split.holdout) - set(testable))
    if seen:
        raise UserError(
            f"split: {len(seen)} of the {len(split.holdout)} subjects to be tested on were seen in pretraining "
            f"({', '.join(seen[:4])}{', ...' if len(seen) > 4 else ''}); hold out others, or add "
            "--allow-overlap, which stamps the result"
        )
    return split


def pretraining_split(run: Path, config: FinetuneConfig, sites: Mapping[str, str], strata: Mapping[str, str]) -> Split:
    """The fold of a crossfit pretraining: who was held out there is tested here.

    Raises:
        UserError: the run has no split, or its hold-out is not of this cohort.
    """
    file = run / "split.json"
    if not file.is_file():
        raise UserError(f"{file}: missing; give a run that `ssl4neuro pretrain --crossfit` has finished")
    held = tuple(s for s in json.loads(file.read_text(encoding="utf-8"))["holdout"] if s in sites)
    if not held:
        raise UserError(f"{run}: none of the subjects that it held out has masks in this cohort; pretrain on this cohort")
    return _held(config, sites, held, strata)


def fewer(split: Split, count: int, seed: int, strata: Mapping[str, str]) -> Split:
    """`count` of the subjects that could have been trained on; larger sets hold the smaller ones, and nobody validates.

    Raises:
        UserError: there are not so many.
    """
    pool = sorted([*split.train, *split.validation])
    if count > len(pool):
        raise UserError(f"patients {count}: the training folds have {len(pool)} subjects; ask for fewer")
    return Split(tuple(sorted(ordered(pool, seed, strata)[:count])), (), split.holdout)
