"""Who trains and who is tested in a nested study: outer folds of subjects, and inner ones within the training subjects."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ssl4neuro.data.splits import Split, SplitConfig, crossfit_splits
from ssl4neuro.errors import UserError
from ssl4neuro.train.network_state_config import INNER_FOLDS, NetworkStateConfig

OUTER = "outer"


@dataclass(frozen=True)
class OuterFold:
    """One outer fold; subjects by name."""

    repeat: int
    fold: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    held: tuple[tuple[str, ...], ...] = field(default=())  # of each inner split: training subjects that its encoder never sees

    @property
    def name(self) -> str:
        """Folder within the run."""
        return f"repeat-{self.repeat}/fold-{self.fold}"

    def encoders(self) -> dict[str, Split]:
        """Folder and subjects of every encoder of the fold: the outer one, and one per inner split. Nobody validates."""
        splits = {OUTER: Split(self.train, (), self.test)}
        for number, held in enumerate(self.held):
            train = tuple(s for s in self.train if s not in held)
            splits[f"inner-{number}"] = Split(train, (), tuple(sorted((*self.test, *held))))
        return splits

    def to_json(self) -> dict[str, list[str]]:
        """For `split.json`."""
        inner = {f"inner-{number}": list(held) for number, held in enumerate(self.held)}
        return {"train": list(self.train), "test": list(self.test), **inner}


def plan_folds(config: NetworkStateConfig, sites: Mapping[str, str], strata: Mapping[str, str]) -> list[OuterFold]:
    """All outer folds of all repeats. Every subject is tested once per repeat.

    Args:
        sites: site of every subject.
        strata: what is spread evenly over the folds.

    Raises:
        UserError: too few subjects for so many folds.
    """
    if len(sites) < 2 * config.folds or len(sites) < 2 * INNER_FOLDS:
        least = 2 * max(config.folds, INNER_FOLDS)
        raise UserError(
            f"{config.data}: {len(sites)} subjects take part; {config.folds} outer and {INNER_FOLDS} inner folds need at "
            f"least {least}: prepare more subjects{', or lower --folds' if config.folds > INNER_FOLDS else ''}"
        )
    rule, plan = SplitConfig(validation=0.0), []
    for repeat in range(config.repeats):
        seed = config.seed + 1000 * repeat
        for fold, split in enumerate(crossfit_splits(sites, config.folds, rule, seed, strata)):
            own = {subject: sites[subject] for subject in split.train}
            inner = crossfit_splits(own, INNER_FOLDS, rule, seed + fold + 1, strata)[: config.inner]
            plan.append(OuterFold(repeat, fold, split.train, split.holdout, tuple(i.holdout for i in inner)))
    return plan
