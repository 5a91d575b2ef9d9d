"""`ssl4neuro finetune`, `ablate`, `compare`."""

import shlex
import sys
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from ssl4neuro.cli.apps import app


def finetune_command(words: list[str]) -> int:
    """`RECIPE [--flag value ...]`; recipe keys are the flags, so that a new option needs no change here."""
    if not words or words[0] in {"-h", "--help"}:
        print(_usage("finetune"))
        return 0
    from ssl4neuro.train.finetune import Interrupted, finetune
    from ssl4neuro.train.finetune_results import render_results

    config = _read(words)
    try:
        found = finetune(config)
    except Interrupted as stop:
        print(f"{stop}; continue with: {shlex.join(['ssl4neuro', 'finetune', *words])} --resume", file=sys.stderr)
        return 130
    print(found if config.estimate else f"{render_results(Path(str(found)))}\n\n{found}")
    return 0


def ablate_command(words: list[str]) -> int:
    """`RECIPE [--flag value ...] [--only TABLE,TABLE]`: every row of the recipe's ablations, and one table of all."""
    if not words or words[0] in {"-h", "--help"}:
        print(_usage("ablate"))
        return 0
    from ssl4neuro.train.ablate import ablate
    from ssl4neuro.train.finetune import Interrupted
    from ssl4neuro.train.finetune_results import render_results

    only: list[str] = []
    if "--only" in words[:-1]:
        at = words.index("--only")
        only = words[at + 1].split(",")
        del words[at : at + 2]
    config = _read(words)
    try:
        found = ablate(config, only)
        print(f"{render_results(found)}\n\n{found}")
    except Interrupted as stop:
        print(f"{stop}; continue with the same command and --resume", file=sys.stderr)
        return 130
    return 0


def _read(words: list[str]) -> Any:
    from ssl4neuro.config import load
    from ssl4neuro.errors import UserError
    from ssl4neuro.shipped import find_recipe
    from ssl4neuro.train.finetune_config import FinetuneConfig

    if words[0].startswith("--"):
        raise UserError(f"{words[0]}: name the recipe first, e.g. ssl4neuro finetune mvo --data COHORT --out RUN")
    return load(FinetuneConfig, find_recipe(words[0]), words[1:])


def _usage(command: str) -> str:
    """Usage, with every key of a recipe and its default."""
    from ssl4neuro.config import describe
    from ssl4neuro.shipped import finetuning, recipes
    from ssl4neuro.train.finetune_config import FinetuneConfig

    more = " [--only TABLE,TABLE]" if command == "ablate" else " [--estimate]"
    return "\n".join([
        f"usage: ssl4neuro {command} RECIPE --data COHORT --out RUN [--init PRETRAINED] [--resume]{more} [--field value ...]",
        "",
        f"RECIPE: a YAML file, or one of {', '.join(recipe.stem for recipe in recipes() if finetuning(recipe))}.",
        "",
        "Fields, with their defaults:",
        *describe(FinetuneConfig),
    ])  # fmt: skip


@app.command(name="finetune")
def _finetune_help() -> int:
    """Fine-tune a head on pretrained encoders: finetune RECIPE --data COHORT --out RUN [--init PRETRAINED]."""
    return finetune_command(["--help"])


@app.command(name="ablate")
def _ablate_help() -> int:
    """Train the variants that a recipe lists under `ablations`, and put them into one table."""
    return ablate_command(["--help"])


@app.command
def compare(
    first: Positional[Path],
    second: Positional[Path],
    /,
    *,
    structure: str | None = None,
    metric: Literal["dice", "dice_3d", "jaccard", "precision", "recall", "hd95", "hsd"] = "dice",
    seed: int = 0,
) -> int:
    """Paired test between two fine-tuned models on the same test subjects.

    Args:
        first: run of `finetune`.
        second: another one, tested on the same subjects.
        structure: what to compare; by default every structure.
        metric: averaged over a patient's scans that show the structure (dice_3d: stacks), then compared between patients.
        seed: of bootstrap and permutations.
    """
    from ssl4neuro.train.finetune_results import compare_runs

    print(compare_runs(first, second, structure=structure, metric=metric, seed=seed))
    return 0
