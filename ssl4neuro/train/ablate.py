"""Ablations: the variants that a recipe lists, each trained and tested like the recipe itself, in one table.

ablations:
  components:                     # a table
    static: {head.motion: false}  # a row: keys of the recipe that differ
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from ssl4neuro.config import from_mapping, to_mapping
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.segmentation import summarise
from ssl4neuro.evaluate.segmentation_results import read_scans, write_segmentation_results
from ssl4neuro.registry import suggest
from ssl4neuro.train.finetune import finetune
from ssl4neuro.train.finetune_config import FinetuneConfig
from ssl4neuro.train.finetune_results import RESULTS
from ssl4neuro.train.network_state_config import NetworkStateConfig

Recipe = TypeVar("Recipe", FinetuneConfig, NetworkStateConfig)


def ablate(config: FinetuneConfig, only: Sequence[str] = ()) -> Path:
    """Train the recipe and its variants, and pool their tests into `OUT/results`. Run again, it continues.

    Args:
        config: recipe with `ablations`; `out` is the folder of all variants.
        only: these tables instead of all.

    Raises:
        UserError: the recipe lists none, an unknown table, or a key that a recipe does not have.
    """
    recipes = {config.head.name: full(config), **variants(config, only)}
    scans, stamps = [], set()
    for number, (name, recipe) in enumerate(recipes.items()):
        started = Path(recipe.out).exists()
        found = finetune(replace(recipe, resume=started, baselines=config.baselines and number == 0))
        results = Path(str(found)) / RESULTS
        table = read_scans(results)
        budget = table["model"].str.removeprefix(recipe.head.name)  # ", 5 patients" of few-label runs
        scans.append(table.assign(model=table["model"].where(table["baseline"], name + budget)))
        stamps.add(json.loads((results / "results.json").read_text(encoding="utf-8"))["stamp"])
        if set(zip(table["row"], table["frame"], strict=True)) != set(zip(scans[0]["row"], scans[0]["frame"], strict=True)):
            raise UserError(f"{found}: tested on other scans than {config.head.name}, so they do not belong in one table")
    pooled = pd.concat(scans, ignore_index=True)
    rows = summarise(pooled, lesion=config.lesion, seed=config.seed)
    settings = {
        "head": config.head.name,
        "recipe": to_mapping(config),
        "variants": {name: Path(recipe.out).name for name, recipe in recipes.items()},
    }
    stamp = "; ".join(sorted(stamps - {""}))
    write_segmentation_results(
        Path(config.out) / RESULTS, pooled, rows, record={"settings": settings, "notes": [], "stamp": stamp}
    )
    return Path(config.out)


def full(config: Recipe) -> Recipe:
    """The recipe itself, in its folder."""
    return replace(config, ablations={}, out=str(Path(config.out) / "full"))


def variants(config: Recipe, only: Sequence[str] = ()) -> dict[str, Recipe]:
    """The variants that a recipe lists, in all tables or `only` these, as `table: row`.

    Raises:
        UserError: the recipe lists none, an unknown table, or a key that a recipe does not have.
    """
    if config.estimate:
        raise UserError("ablate: --estimate is for one recipe; use `ssl4neuro finetune ... --estimate`")
    if not config.ablations:
        raise UserError("ablate: the recipe lists no ablations; add e.g. ablations: {parts: {no motion: {head.motion: false}}}")
    for name in only:
        if name not in config.ablations:
            raise UserError(f"--only {name}: no such table of ablations{suggest(name, config.ablations)}")
    tables = {name: rows for name, rows in config.ablations.items() if not only or name in only}
    return {
        f"{table}: {row}": variant(config, table, row, keys) for table, rows in tables.items() for row, keys in rows.items()
    }


def variant(config: Recipe, table: str, row: str, keys: Mapping[str, Any]) -> Recipe:
    """The recipe with some keys changed, in a folder of its own."""
    mapping = to_mapping(replace(config, ablations={}))
    for key, value in keys.items():
        *parents, last = key.split(".")
        inner = mapping
        for parent in parents:
            inner = inner[parent] if isinstance(inner.get(parent), dict) else inner.setdefault(parent, {})
        inner[last] = value
    folder = "".join(c if c.isalnum() else "-" for c in f"{table}-{row}").strip("-")
    return from_mapping(type(config), {**mapping, "out": str(Path(config.out) / folder)}, f"ablations.{table}.{row}")
