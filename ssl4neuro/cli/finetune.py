"""`ssl4neuro finetune`, `ablate`."""

import shlex
import sys
from pathlib import Path
from typing import Any

from ssl4neuro.cli.apps import app


def finetune_command(words: list[str]) -> int:
    """`RECIPE [--flag value ...]`; recipe keys are the flags, so that a new option needs no change here."""
    if not words or words[0] in {"-h", "--help"}:
        print(_usage("finetune"))
        return 0
    from ssl4neuro.train.interruption import Interrupted
    from ssl4neuro.train.tasks import TASKS

    config = _read(words)
    task = TASKS[config.task]
    try:
        found = task.run(config)
    except Interrupted as stop:
        more = [] if config.resume else ["--resume"]
        print(f"{stop}; continue with: {shlex.join(['ssl4neuro', 'finetune', *words, *more])}", file=sys.stderr)
        return 130
    if _main_process():
        print(found if config.estimate else f"{task.render(Path(str(found)))}\n\n{found}")
    return 0


def ablate_command(words: list[str]) -> int:
    """`RECIPE [--flag value ...] [--only TABLE,TABLE]`: every row of the recipe's ablations, and one table of all."""
    if not words or words[0] in {"-h", "--help"}:
        print(_usage("ablate"))
        return 0
    from ssl4neuro.train.interruption import Interrupted
    from ssl4neuro.train.tasks import TASKS

    only: list[str] = []
    if "--only" in words[:-1]:
        at = words.index("--only")
        only = words[at + 1].split(",")
        del words[at : at + 2]
    config = _read(words)
    task = TASKS[config.task]
    try:
        found = task.ablate(config, only)
        print(f"{task.render(found)}\n\n{found}")
    except Interrupted as stop:
        print(f"{stop}; continue with the same command and --resume", file=sys.stderr)
        return 130
    return 0


def _read(words: list[str]) -> Any:
    from ssl4neuro.config import from_mapping, merge_flags, read_yaml
    from ssl4neuro.errors import UserError
    from ssl4neuro.registry import suggest
    from ssl4neuro.shipped import find_recipe
    from ssl4neuro.train.tasks import DEFAULT, TASKS

    if words[0].startswith("--"):
        raise UserError(f"{words[0]}: name the recipe first, e.g. ssl4neuro finetune mvo --data COHORT --out RUN")
    recipe = find_recipe(words[0])
    values = read_yaml(recipe)
    merge_flags(values, words[1:])
    task = values.get("task", DEFAULT)
    if task not in TASKS:
        raise UserError(f"{recipe.name}.task: no task '{task}'{suggest(str(task), TASKS)}")
    return from_mapping(TASKS[task].config, values, recipe.name)


def _main_process() -> bool:
    from accelerate import PartialState

    return PartialState().is_main_process


def _usage(command: str) -> str:
    """Usage, with every key of the recipes and its default."""
    from ssl4neuro.config import describe
    from ssl4neuro.shipped import finetuning, recipes
    from ssl4neuro.train.tasks import TASKS

    more = " [--only TABLE,TABLE]" if command == "ablate" else " [--estimate]"
    return "\n".join([
        f"usage: ssl4neuro {command} RECIPE --data COHORT --out RUN [--init PRETRAINED] [--resume]{more} [--field value ...]",
        "",
        f"RECIPE: a YAML file, or one of {', '.join(recipe.stem for recipe in recipes() if finetuning(recipe))}.",
        *(line for name in TASKS for line in ("", f"Fields of task {name}:", *describe(TASKS[name].config))),
    ])  # fmt: skip


@app.command(name="finetune")
def _finetune_help() -> int:
    """Fine-tune a head on pretrained encoders: finetune RECIPE --data COHORT --out RUN [--init PRETRAINED]."""
    return finetune_command(["--help"])


@app.command(name="ablate")
def _ablate_help() -> int:
    """Train the variants that a recipe lists under `ablations`, and put them into one table."""
    return ablate_command(["--help"])
