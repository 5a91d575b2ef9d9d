"""The network-state study: an encoder inside every outer fold, stage two on top, and the pooled scores of unseen subjects.

RUN/cells holds the rows that are studied; RUN/repeat-R/fold-K the encoders of a fold (`outer`, `inner-J`, each an ordinary
pretraining run) and its held-out scores; RUN/results all of them together. A finished fold is never done again, an unfinished
encoder goes on bit for bit. Source: `methods/network_state.md`.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from accelerate import PartialState

from ssl4neuro.checkpoint import Checkpoint
from ssl4neuro.config import from_mapping, to_mapping
from ssl4neuro.data.cells import write_cells
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.ica_cohort import IcaCohort
from ssl4neuro.data.splits import Split, SplitConfig
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.embed_rows import embed_rows
from ssl4neuro.evaluate.network_state import InnerSplit, score_fold, study_items
from ssl4neuro.evaluate.network_state.study import RECORD, pool, write_fold
from ssl4neuro.evaluate.network_state.write import write_study
from ssl4neuro.model import count_parameters
from ssl4neuro.objectives.change_aware import ChangeAware, boundary
from ssl4neuro.pretrained import load
from ssl4neuro.train.estimate import Estimate, estimate
from ssl4neuro.train.fold_processes import run_all
from ssl4neuro.train.interruption import Interrupted, StopRequest
from ssl4neuro.train.loop import make_accelerator
from ssl4neuro.train.network_state_config import NetworkStateConfig
from ssl4neuro.train.network_state_folds import OUTER, OuterFold, plan_folds
from ssl4neuro.train.pretrain import PretrainTask, pretrain_on
from ssl4neuro.train.run import Run, environment, strata

CELLS, RESULTS = "cells", "results"


def network_state(config: NetworkStateConfig) -> Path | Estimate:
    """Run the study, or go on with it.

    Returns:
        The run folder; with `estimate`, the expected time of all encoders instead.

    Raises:
        UserError: whatever the user can put right.
        Interrupted: stopped by Ctrl-C or SIGTERM, after saving.
    """
    config = config.settled
    cohort, items = _source(config)
    folds, rows = _folds(config, cohort, items), items["row"].to_numpy(dtype=np.int64)
    if config.estimate:
        with tempfile.TemporaryDirectory() as folder:
            return _estimate(config, _cells(config, cohort, rows, Path(folder)), folds)
    out, process = Path(config.out), PartialState()
    if not config.resume and out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: holds a run already; add --resume to continue it, or name another --out")
    if process.num_processes > 1 and config.jobs > 1:
        raise UserError(f"--jobs {config.jobs}: the {process.num_processes} processes share each training; leave --jobs out")
    if process.is_main_process:
        _begin(Run(out), config, folds, process)
        _cells(config, cohort, rows, out)
    process.wait_for_everyone()
    todo = [(config, fold) for fold in folds if not (out / fold.name / RECORD).is_file()]
    run_all(run_fold, todo, config.jobs)
    if process.is_main_process:
        if (out / RESULTS).is_dir():
            shutil.rmtree(
                out / RESULTS
            )  # made again from the folds, which stay: one may be new, or more permutations asked for
        _pool(config, _cells(config, cohort, rows, out), folds)
    process.wait_for_everyone()
    return out


def run_fold(config: NetworkStateConfig, fold: OuterFold) -> None:
    """Train the encoders of one outer fold, embed, and score its held-out subjects.

    Raises:
        UserError: an encoder has seen a subject that it must not know.
        Interrupted: asked to stop.
    """
    folder, process = Path(config.out) / fold.name, PartialState()
    cohort = Cohort.open(Path(config.out) / CELLS)
    with StopRequest() as stop:
        for number, (name, split) in enumerate(fold.encoders().items()):
            _train(config, cohort, split, folder / name, 100 * (1000 * fold.repeat + fold.fold) + number)
            if stop.asked:
                raise Interrupted(f"stopped after an encoder; everything is saved in {folder}")
        if process.is_main_process:
            _score(config, cohort, fold, folder, process)
        process.wait_for_everyone()


def _source(config: NetworkStateConfig) -> tuple[IcaCohort, pd.DataFrame]:
    """The cohort and its rows that are studied (`study_items`), after everything that can be wrong with them."""
    if not config.data or not config.out:
        missing = "--data COHORT" if not config.data else "--out RUN"
        raise UserError(
            f"network_state: {missing} is missing; prepare a cohort with `ssl4neuro prepare ica` and name a run folder"
        )
    cohort = Cohort.open(config.data)
    if not isinstance(cohort, IcaCohort) or "map" not in cohort.modalities:
        raise UserError(f"{config.data}: a cohort of kind '{cohort.kind}'; the study needs maps and courses of ICA components")
    items = _items(config, cohort)
    both = items.groupby("subject")["y"].nunique() == 2
    if not both.any():
        raise UserError(
            f"{config.data}: no subject has a scan of both states ({config.before} and {config.after}); the study compares "
            "within subjects: add the other session, or name other states with --before and --after"
        )
    return cohort, items


def _items(config: NetworkStateConfig, cohort: Cohort) -> pd.DataFrame:
    return study_items(cohort, state=config.state, before=config.before, after=config.after, networks=config.networks)


def _cells(config: NetworkStateConfig, cohort: IcaCohort, rows: np.ndarray, out: Path) -> IcaCohort:
    return write_cells(out / CELLS, cohort, rows, aggregate=config.cells == "aggregated")


def _folds(config: NetworkStateConfig, cohort: IcaCohort, items: pd.DataFrame) -> list[OuterFold]:
    sites = dict(zip(items["subject"].tolist(), items["site"].tolist(), strict=True))
    return plan_folds(config, sites, strata(cohort, SplitConfig(stratify=config.stratify)))


def _begin(run: Run, config: NetworkStateConfig, folds: Sequence[OuterFold], process: PartialState) -> None:
    """Make the run folder, or refuse to continue another study."""
    plan = {fold.name: fold.to_json() for fold in folds}
    if not (run.path / "config.yaml").is_file():
        where = environment(config.seed, process.device.type, process.num_processes)
        run.create(to_mapping(config), where, plan)
        return
    saved = from_mapping(NetworkStateConfig, run.saved_config(), str(run.path / "config.yaml"))
    run.refuse_changes(saved.identity(), config.identity())
    if json.loads((run.path / "split.json").read_text(encoding="utf-8")) != plan:
        raise UserError(f"{run.path}: cannot resume, the cohort's subjects and so the folds have changed; use another --out")


def _train(config: NetworkStateConfig, cohort: Cohort, split: Split, folder: Path, number: int) -> None:
    if (folder / "summary.json").is_file():
        return
    if PartialState().is_main_process:
        print(f"- {folder}: training on {len(split.train)} subjects", file=sys.stderr, flush=True)
    pretrain_on(config.encoder(str(folder), number, resume=(folder / "config.yaml").is_file()), cohort, split)


def _score(config: NetworkStateConfig, cohort: Cohort, fold: OuterFold, folder: Path, process: PartialState) -> None:
    items = _items(config, cohort)
    subject = items["subject"].to_numpy(dtype=str)
    train, test = (np.flatnonzero(np.isin(subject, names)) for names in (fold.train, fold.test))
    vectors = {}
    for name, split in fold.encoders().items():
        pretrained = load(folder / name, "last", process.device)
        _refuse_seen(pretrained.checkpoint, cohort, split.holdout, folder / name)
        vectors[name] = embed_rows(pretrained.model, cohort, items["row"].to_numpy(dtype=np.int64), process.device)
    inner = []
    for number, held in enumerate(fold.held):
        apart = np.isin(subject, held)
        rest = np.isin(subject, fold.train) & ~apart
        inner.append(InnerSplit(np.flatnonzero(rest), np.flatnonzero(apart), vectors[f"inner-{number}"]))
    scores = score_fold(
        cohort, items, vectors[OUTER], train, test, inner, repeat=fold.repeat, fold=fold.fold, config=config.stage_two,
        change=_change(config, vectors[OUTER]), seed=config.seed,
    )  # fmt: skip
    write_fold(folder, scores)


def _refuse_seen(saved: Checkpoint, cohort: Cohort, held: Sequence[str], folder: Path) -> None:
    """The firewall of the study. Raises UserError where the encoder has seen a subject that it is to be tested on."""
    seen = sorted(set(saved.manifest.overlap(cohort.name, cohort.content_hashes())) & set(held))
    if seen:
        raise UserError(
            f"{folder}: this encoder has seen {len(seen)} of the {len(held)} subjects that are held out of it "
            f"({', '.join(seen[:4])}{', ...' if len(seen) > 4 else ''}), by name or by content; delete the folder and --resume"
        )


def _change(config: NetworkStateConfig, embedding: np.ndarray) -> np.ndarray | None:
    """The part of the embedding that tells what changed, where the encoder was trained to have one."""
    if config.preset != "change_aware" or config.objectives:
        return None
    return embedding[:, boundary(embedding.shape[1], ChangeAware().share) :]


def _pool(config: NetworkStateConfig, cohort: IcaCohort, folds: Sequence[OuterFold]) -> Path:
    """Everything that was held out, together."""
    folders = [Path(config.out) / fold.name for fold in folds]
    first = load(folders[0] / OUTER, "last").model
    affine = cohort.affine
    record: dict[str, Any] = {
        "cohort": cohort.name, "n_subjects": cohort.info["subjects"], "preset": config.preset,
        "objective": ", ".join(f"{c.name} ({name})" for name, c in first.config.objectives.items()),
        "folds": config.folds, "repeats": config.repeats, "inner": config.inner, "epochs": config.loop.epochs,
        "grid_mm": None if affine is None else round(float(np.linalg.norm(affine[:3, 0])), 3), "seed": config.seed,
        "encoder": ", ".join(f"{name}: {m.encoder.name}" for name, m in config.modalities.items()),
        "parameters": count_parameters(first), "cells": config.cells,
        "modalities": list(config.modalities), "custom": bool(config.objectives), "heads": config.stage_two.heads,
        "hidden": config.stage_two.head.hidden, "lesion_masks": _lesion_masks(cohort),
        "checks": [_check(folds)],
        "notes": ["Encoders are trained on a fixed schedule; no subject steers it."],
    }  # fmt: skip
    return write_study(
        Path(config.out) / RESULTS, pool(folders), record,
        after=config.after, bootstrap=config.bootstrap, permutations=config.permutations, seed=config.seed,
    )  # fmt: skip


def _lesion_masks(cohort: IcaCohort) -> bool | dict[str, int]:
    """Of how many subjects lesions were masked; False where none were given."""
    if cohort.info["settings"]["prepared"].get("lesions") != "masked":
        return False
    masked = pd.to_numeric(pd.Series(cohort.labels("lesion_ml")), errors="coerce").notna().to_numpy()
    subject = cohort.index["subject"].to_numpy(dtype=str)
    return {"masked": len(np.unique(subject[masked])), "subjects": len(np.unique(subject))}


def _check(folds: Sequence[OuterFold]) -> dict[str, str]:
    count = sum(len(fold.encoders()) for fold in folds)
    detail = f"{count} encoders; by their manifests none has seen a subject that is held out of it, by name or by content"
    return {"name": "encoder inside the fold", "status": "passed", "detail": detail}


def _estimate(config: NetworkStateConfig, cohort: IcaCohort, folds: Sequence[OuterFold]) -> Estimate:
    """Time of all encoders, from a few steps of the first; inner ones have fewer steps."""
    found, steps = [], 0
    for number, split in enumerate(list(folds[0].encoders().values())[:2]):
        recipe = config.encoder(config.out, number)
        accelerator = make_accelerator(recipe.loop, recipe.optimiser, Path(config.out))
        task = PretrainTask(recipe, cohort, split, accelerator)
        found.append(estimate(task, recipe.loop, recipe.optimiser, accelerator))
        steps += len(folds) * found[-1].steps * (1 if number == 0 else config.inner)
    encoders = len(folds) * (1 + config.inner)
    detail = f"{encoders} encoders of {len(folds)} outer folds; stage two not counted"
    return replace(found[0], steps=steps, parallel=config.jobs, detail=detail)
