"""Who trains a head and who tests it: folds of subjects that no encoder has seen, and the subjects of few-label runs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ssl4neuro.data.splits import Split, SplitConfig, crossfit_splits, ordered, split_subjects, take
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
    if config.split.by_site:  # a site is tested as a whole
        known = {sites[s] for s in sites if s in set(seen)}
        unseen = {s: site for s, site in unseen.items() if site not in known}
    if len(unseen) < len(sites) and config.allow_overlap:
        splits = _splits(config, sites, sites, strata)
        return splits, overlap_stamp(splits, [seen] * len(splits))
    if not unseen or (config.folds and len(unseen) < config.folds):
        names = ", ".join(sorted(set(sites) & set(seen))[:4])
        raise UserError(
            f"--init {config.init}: {len(sites) - len(unseen)} of the {len(sites)} subjects with masks were seen in "
            f"pretraining ({names}{', ...' if len(seen) > 4 else ''}), so that too few are left to test on; pretrain with "
            "--crossfit, or with a larger split.holdout, or add --allow-overlap, which stamps the result"
        )
    return _splits(config, sites, unseen, strata), ""


def overlap_stamp(splits: Sequence[Split], seen: Sequence[Sequence[str]]) -> str:
    """What a result must say whose test subjects shaped the encoders; empty where none did."""
    tested = [subject for split in splits for subject in split.holdout]
    known = [subject for split, own in zip(splits, seen, strict=True) for subject in split.holdout if subject in set(own)]
    return f"OVERLAP: {len(known)} of {len(tested)} test subjects shaped the encoders" if known else ""


def _splits(
    config: FinetuneConfig, sites: Mapping[str, str], testable: Mapping[str, str], strata: Mapping[str, str]
) -> list[Split]:
    rule = replace(config.split, stratify=None) if strata else config.split
    by_site = config.split.by_site
    if config.folds:
        tested = [split.holdout for split in crossfit_splits(testable, config.folds, rule, config.seed, strata)]
    elif len(testable) < len(sites) and not (rule.hold_subjects or rule.hold_sites):
        share = min(1.0, max(1, round(rule.holdout * len(sites))) / len(testable))
        tested = [tuple(sorted(take(testable, share, by_site, config.seed, strata)))]
    else:
        return [_checked(split_subjects(sites, rule, config.seed, strata), testable)]
    return [_held(config, sites, held, strata) for held in tested]


def _held(config: FinetuneConfig, sites: Mapping[str, str], held: tuple[str, ...], strata: Mapping[str, str]) -> Split:
    rule = SplitConfig(validation=config.split.validation, hold_subjects=held, by_site=config.split.by_site)
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


def pretraining_split(
    run: Path, config: FinetuneConfig, sites: Mapping[str, str], strata: Mapping[str, str], seen: Sequence[str]
) -> Split:
    """The fold of a crossfit pretraining: who was held out there is tested here.

    Args:
        seen: subjects of this cohort that shaped the fold's encoders, by name or by content.

    Raises:
        UserError: the run is not finished, its hold-out is not of this cohort, or it has seen them under another name.
    """
    file = run / "split.json"
    if not file.is_file() or not (run / "summary.json").is_file():
        raise UserError(f"{run}: is not finished; continue `ssl4neuro pretrain --crossfit` with --resume")
    held = tuple(s for s in json.loads(file.read_text(encoding="utf-8"))["holdout"] if s in sites)
    if not held:
        raise UserError(f"{run}: none of the subjects that it held out has masks in this cohort; pretrain on this cohort")
    again = sorted(set(held) & set(seen))
    if again and not config.allow_overlap:
        raise UserError(
            f"{run}: {len(again)} of the subjects that it held out were seen under other names ({', '.join(again[:4])}); "
            "remove the duplicates, or add --allow-overlap, which stamps the result"
        )
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
