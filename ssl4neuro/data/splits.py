"""Which subjects train, which steer the training, and which no encoder ever sees: always by subject, by site on request."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from ssl4neuro.errors import UserError
from ssl4neuro.registry import suggest


@dataclass(frozen=True)
class SplitConfig:
    """How subjects are divided before pretraining."""

    holdout: float = 0.2  # share of subjects no encoder sees; probes are tested on them
    validation: float = 0.15  # share of the rest that steers early stopping; never trained on
    by_site: bool = False  # keep every site on one side
    hold_sites: tuple[str, ...] = ()  # these sites are the hold-out; overrides `holdout`
    stratify: str | None = None  # label column spread evenly over hold-out and validation, and used for nothing else
    hold_subjects: tuple[str, ...] = ()  # these subjects are the hold-out, e.g. a published test set; overrides `holdout`

    def __post_init__(self) -> None:
        for name in ("holdout", "validation"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is a share of the subjects, at least 0 and below 1")
        if self.hold_sites and self.hold_subjects:
            raise ValueError("hold_sites and hold_subjects are two ways to name the hold-out; give one of them")
        if self.stratify and (self.by_site or self.hold_sites or self.hold_subjects):
            raise ValueError("stratify spreads subjects; leave by_site, hold_sites and hold_subjects out")


@dataclass(frozen=True)
class Split:
    """Disjoint sets of subjects, saved with the run as split.json."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    holdout: tuple[str, ...]

    def to_json(self) -> dict[str, list[str]]:
        return {name: list(subjects) for name, subjects in asdict(self).items()}


def split_subjects(sites: Mapping[str, str], config: SplitConfig, seed: int, strata: Mapping[str, str] | None = None) -> Split:
    """Divide subjects into train, validation and hold-out.

    The order is a hash of (seed, subject), so that a subject added later moves as few of the others as possible.

    Args:
        sites: site of every subject.
        config: shares, and whether whole sites stay together.
        strata: value of the column `config.stratify` for every subject.
        seed: another seed gives another split.

    Raises:
        UserError: an unknown site or subject is to be held out, or no subject is left to train on.
    """
    strangers = sorted(set(config.hold_subjects) - set(sites))
    if strangers:
        raise UserError(f"split.hold_subjects: no subject '{strangers[0]}' in this cohort{suggest(strangers[0], sites)}")
    unknown = sorted(set(config.hold_sites) - set(sites.values()))
    if unknown:
        raise UserError(
            f"split.hold_sites: no site '{unknown[0]}' in this cohort (it has {', '.join(sorted(set(sites.values())))})"
        )
    if config.hold_sites:
        held = {s for s, site in sites.items() if site in config.hold_sites}
    elif config.hold_subjects:
        held = set(config.hold_subjects)
    else:
        held = take(sites, config.holdout, config.by_site, seed, strata)
    rest = {s: site for s, site in sites.items() if s not in held}
    validation = take(rest, config.validation, config.by_site, seed, strata)
    train = sorted(set(rest) - validation)
    if len(train) < 2:
        raise UserError(
            f"split: {len(train)} of {len(sites)} subjects would be left to train on; at least 2 are needed, since contrastive "
            "learning compares subjects: prepare more subjects, or lower split.holdout and split.validation"
        )
    return Split(tuple(train), tuple(sorted(validation)), tuple(sorted(held)))


def crossfit_splits(
    sites: Mapping[str, str], folds: int, config: SplitConfig, seed: int, strata: Mapping[str, str] | None = None
) -> list[Split]:
    """One split per fold; every subject is held out exactly once. Arguments as in `split_subjects`."""
    units = sorted(set(sites.values())) if config.by_site else sorted(sites)
    if not 2 <= folds <= len(units):
        raise UserError(f"crossfit: {folds} folds of {len(units)} {'sites' if config.by_site else 'subjects'} is not possible")
    order = _shuffled(units, seed)
    if strata and not config.by_site:
        order = sorted(order, key=lambda subject: strata.get(subject, ""))  # dealt out one by one, stratum after stratum
    splits = []
    for fold in range(folds):
        chosen = set(order[fold::folds])
        held = {s for s, site in sites.items() if (site if config.by_site else s) in chosen}
        rest = {s: site for s, site in sites.items() if s not in held}
        validation = take(rest, config.validation, config.by_site, seed, strata)
        splits.append(Split(tuple(sorted(set(rest) - validation)), tuple(sorted(validation)), tuple(sorted(held))))
    return splits


def take(sites: Mapping[str, str], share: float, by_site: bool, seed: int, strata: Mapping[str, str] | None = None) -> set[str]:
    """About `share` of the subjects (of each stratum, where there are some); at least one when the share is not zero."""
    if share == 0 or not sites:
        return set()
    target = max(1, round(share * len(sites)))
    if not by_site:
        return set(ordered(sorted(sites), seed, strata)[:target])
    taken: set[str] = set()
    for site in _shuffled(sorted(set(sites.values())), seed):
        if len(taken) >= target:
            break
        taken |= {s for s, where in sites.items() if where == site}
    return taken


def ordered(subjects: Sequence[str], seed: int, strata: Mapping[str, str] | None = None) -> list[str]:
    """The subjects in the order of a hash, every beginning of which holds about the same share of each stratum."""
    return _spread(_shuffled(subjects, seed), strata or {})


def _spread(subjects: Sequence[str], strata: Mapping[str, str]) -> list[str]:
    """The same subjects, reordered so that every beginning of the list holds about the same share of each stratum."""
    size = Counter(strata.get(subject, "") for subject in subjects)
    taken: Counter[str] = Counter()
    place = {}
    for subject in subjects:
        stratum = strata.get(subject, "")
        place[subject] = (taken[stratum] + 0.5) / size[stratum]
        taken[stratum] += 1
    return sorted(subjects, key=place.__getitem__)


def _shuffled(names: Sequence[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
