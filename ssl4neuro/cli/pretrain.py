"""`ssl4neuro pretrain`, which reads recipes and so has its own parser."""

import sys

from ssl4neuro.cli.apps import app


def pretrain_command(words: list[str]) -> int:
    """`[RECIPE] [--flag value ...]`; recipe keys are the flags, so that a new option needs no change here."""
    from ssl4neuro.shipped import find_recipe

    if words and words[0] in {"-h", "--help"}:
        print(_usage())
        return 0
    name = words.pop(0) if words and not words[0].startswith("--") else None
    if name is None and not any(word.startswith("--data") for word in words):
        from ssl4neuro.quickstart import quickstart

        return quickstart(words)
    recipe = find_recipe(name or "rest_ica")
    from ssl4neuro.config import load
    from ssl4neuro.train.pretrain import Interrupted, PretrainConfig, pretrain

    config = load(PretrainConfig, recipe, words)
    try:
        print(pretrain(config))
    except Interrupted as stop:
        print(
            f"{stop}; continue with: ssl4neuro pretrain {name or ''} --data {config.data} --out {config.out} --resume",
            file=sys.stderr,
        )
        return 130
    return 0


def _usage() -> str:
    """Usage of `pretrain`, with every key of a recipe and its default."""
    from ssl4neuro.config import describe
    from ssl4neuro.shipped import finetuning, recipes
    from ssl4neuro.train.pretrain import PretrainConfig

    names = ", ".join(recipe.stem for recipe in recipes() if not finetuning(recipe))
    return "\n".join([
        "usage: ssl4neuro pretrain [RECIPE] --data COHORT --out RUN [--resume] [--estimate] [--any.field value ...]",
        "",
        f"RECIPE: a YAML file, or one of {names} (default rest_ica).",
        "Without RECIPE and --data the quick start runs.",
        "",
        "Fields, with their defaults:",
        *describe(PretrainConfig),
    ])  # fmt: skip


@app.command(name="pretrain")
def _help() -> int:
    """Pretrain encoders from a recipe: pretrain [RECIPE] --data COHORT --out RUN [--any.field value]."""
    return pretrain_command(["--help"])
