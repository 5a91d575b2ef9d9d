"""Ablations of a network-state study: other inputs and objectives on the same folds, in one table."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ssl4neuro.config import to_mapping
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.network_state.fold import LOGISTIC
from ssl4neuro.evaluate.network_state.study import Study, pool
from ssl4neuro.evaluate.network_state.write import read_study, write_study
from ssl4neuro.train.ablate import full, variants
from ssl4neuro.train.network_state import RESULTS, network_state
from ssl4neuro.train.network_state_config import NetworkStateConfig

CELL = ["repeat", "fold", "subject", "session", "run", "network", "component"]


def ablate_network_state(config: NetworkStateConfig, only: Sequence[str] = ()) -> Path:
    """Run the study and its variants, and pool their held-out scores into `OUT/results`. Run again, it continues.

    A variant's row is its logistic regression: the same features but for its encoder's, the same folds.

    Args:
        config: recipe with `ablations`; `out` is the folder of all variants.
        only: these tables instead of all.

    Raises:
        UserError: the recipe lists none, an unknown table, a key that a recipe does not have, or variants with other folds.
    """
    recipes = variants(config, only)
    whole = _study(full(config))
    scores = [whole.scores]
    for name, recipe in recipes.items():
        own = _study(recipe).scores
        own = own[own["model"] == LOGISTIC].assign(model=name)
        here = scores[0][scores[0]["model"] == LOGISTIC]
        if not own[CELL].reset_index(drop=True).equals(here[CELL].reset_index(drop=True)):
            raise UserError(
                f"ablations: {name}: other held-out cells than the recipe has; keep folds, seed and networks the same"
            )
        scores.append(own)
    study = Study(pd.concat(scores, ignore_index=True), whole.embeddings, whole.scans, whole.folds)
    record = {
        **read_study(Path(full(config).out) / RESULTS)["study"],
        "recipe": to_mapping(config),
        "variants": {n: Path(r.out).name for n, r in recipes.items()},
    }
    results = Path(config.out) / RESULTS
    if results.is_dir():
        shutil.rmtree(results)  # made again from the studies, which stay
    write_study(
        results, study, record,
        after=config.after, bootstrap=config.bootstrap, permutations=config.permutations, seed=config.seed,
    )  # fmt: skip
    return Path(config.out)


def _study(config: NetworkStateConfig) -> Study:
    out = Path(config.out)
    network_state(replace(config, resume=config.resume or out.exists()))
    return pool(sorted(out.glob("repeat-*/fold-*"), key=lambda p: (int(p.parent.name[7:]), int(p.name[5:]))))
