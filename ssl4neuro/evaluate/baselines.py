"""The strong simple baselines that stand beside every embedding, in the same folds.

For single components: PCA of the maps and band powers of the courses, each with the linear probe, and correlation with the
classes' mean maps where the target is the component's network. For scans and subjects: connectivity between components (FNC;
arXiv 2510.13768: "all models struggle to outperform a simple functional connectivity baseline"), the same in tangent space, PCA
of the maps, band powers, and what whole-brain averages of the courses say of the acquisition.
For clips see `clip_baselines`. Everywhere: nuisance variables alone, which find out when the answer is in the motion or the
scanner, and the majority class.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.connectome import singular
from ssl4neuro.data.embeddings import SCAN_KEY, Embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate import connectivity
from ssl4neuro.evaluate.clip_baselines import clip_baselines
from ssl4neuro.evaluate.course_quality import unit_quality
from ssl4neuro.evaluate.crossval import Candidate
from ssl4neuro.evaluate.features import (
    ArrayFeatures,
    ConstantFeatures,
    Features,
    GramPCA,
    MapPCA,
    MapRows,
    NuisanceFeatures,
    TangentFeatures,
    nuisance_table,
)
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.majority import MajorityProbe
from ssl4neuro.evaluate.problem import Problem
from ssl4neuro.evaluate.statistics import constant_within
from ssl4neuro.evaluate.template import TemplateProbe

MAX_TRAIN_MAPS = 8192
MAX_TANGENT_COST = 5e9  # scans times parts cubed; 1e8 takes about a second per fold
NUISANCE_ONLY = "nuisance only"


def simple_baselines(problem: Problem, site: str | None = None, nuisance: Sequence[str] | None = None) -> list[Candidate]:
    """Those that need no cohort: nuisance variables (by default the usual ones), and the majority class or training mean."""
    found = []
    table = nuisance_table(problem.table, problem.target, [site] if site else [], nuisance)
    if table is not None and not constant_within(problem.y, problem.scans).mean() < 0.5:  # nuisances are the scan's
        found.append(_linear(NUISANCE_ONLY, problem, NuisanceFeatures(table), keep_name=True))
    if problem.classes:
        code = int(np.bincount(problem.y.astype(int)).argmax())
        found.append(Candidate("majority", ConstantFeatures(), MajorityProbe(code), baseline=True, informative=False))
    else:
        found.append(Candidate("training mean", ConstantFeatures(), MajorityProbe(), baseline=True, informative=False))
    return found


def cohort_baselines(problem: Problem, cohort: Cohort) -> tuple[list[Candidate], list[str]]:
    """Baselines from the cohort's own data, and notes on those that could not be made."""
    units = cohort_rows(problem.table, cohort, problem.unit)
    if isinstance(cohort, ClipCohort):
        return clip_baselines(problem, cohort, units)
    if problem.unit == "sample":
        return _sample_baselines(problem, cohort, np.concatenate(units)), []
    parts = connectivity.layout(cohort.index, units)
    if parts is None:
        return [], ["no FNC, map or band-power baseline: the scans share fewer than two components or networks"]
    found, notes = [], [f"FNC, PCA and band power: {len(parts.keys)} parts per scan, by {parts.by}"]
    if "course" in cohort.modalities:
        found.append(_linear("FNC", problem, ArrayFeatures(connectivity.unit_fnc(cohort, parts))))
        tangent, more = _tangent(problem, cohort, parts)
        found, notes = found + tangent, notes + more
        found.append(_linear("band power", problem, ArrayFeatures(connectivity.unit_bands(cohort, parts))))
        found.append(_linear("course quality", problem, ArrayFeatures(unit_quality(cohort, parts))))
    if "map" in cohort.modalities:
        found.append(_linear("PCA", problem, GramPCA(connectivity.map_gram(cohort, parts))))
    return found, notes


def cohort_rows(table: pd.DataFrame, cohort: Cohort, unit: str) -> list[Int[np.ndarray, "_"]]:
    """The cohort's rows of every line of a sample, session or subject table.

    Raises:
        UserError: the cohort does not have them, so it is not the cohort that was embedded.
    """
    keys = {"sample": [*SCAN_KEY, cohort.places[-1]], "session": SCAN_KEY, "subject": ["subject"]}[unit]
    if lacking := [key for key in keys if key not in table]:
        raise UserError(
            f"{cohort.path}: its samples are told apart by '{lacking[0]}', which the embeddings do not have; add that column,"
            " or go without with --no-baselines"
        )
    index = cohort.index
    groups = {_key(name): rows for name, rows in index.groupby(keys, sort=False).indices.items()}
    try:
        found = [np.asarray(groups[_key(tuple(line))]) for line in table[keys].itertuples(index=False)]
    except KeyError as error:
        raise UserError(
            f"{cohort.path}: has no {unit} {' '.join(map(str, error.args[0]))}; name the cohort that was embedded with --cohort"
        ) from error
    if unit == "sample" and any(len(rows) != 1 for rows in found):
        # a component or slice number occurs twice in a scan
        found = [np.array([row]) for row in table["row"].to_numpy(dtype=np.int64)]
    return found


def open_cohort(embeddings: Embeddings, given: Path | None) -> Cohort:
    """The cohort given, or the one that the embeddings were made of.

    Raises:
        UserError: it is not where it was.
    """
    if given is not None:
        return Cohort.open(given)
    recorded = embeddings.info.get("cohort")
    if recorded:
        for candidate in (Path(recorded), embeddings.path / recorded):
            if (candidate / "cohort.json").is_file():
                return Cohort.open(candidate)
    raise UserError(
        f"{embeddings.path}: the cohort it was made of ({recorded or 'not recorded'}) is not there, and the baselines need it;"
        " name it with --cohort PATH or go without with --no-baselines"
    )


def _sample_baselines(problem: Problem, cohort: Cohort, rows: np.ndarray) -> list[Candidate]:
    found = []
    if "map" in cohort.modalities:
        found.append(_linear("PCA", problem, MapPCA(cohort, rows), max_train=MAX_TRAIN_MAPS))
        if problem.target == "network":
            found.append(Candidate("template correlation", MapRows(cohort, rows), TemplateProbe(), True, MAX_TRAIN_MAPS))
    if "course" in cohort.modalities:
        found.append(_linear("band power", problem, ArrayFeatures(connectivity.sample_bands(cohort, rows))))
    return found


def _tangent(problem: Problem, cohort: Cohort, parts: connectivity.Layout) -> tuple[list[Candidate], list[str]]:
    """Tangent-space connectivity, or why it was left out."""
    scans = [[connectivity.stacked(courses).T for courses in unit] for unit in connectivity.scan_courses(cohort, parts)]
    count = sum(map(len, scans))
    if count * len(parts.keys) ** 3 > MAX_TANGENT_COST:
        return [], [f"tangent connectivity was left out: {count} scans of {len(parts.keys)} parts would take minutes per fold"]
    if bad := singular([scan for unit in scans for scan in unit]):
        return [], [f"tangent connectivity was left out: the courses of {bad} scans depend on each other even after shrinkage"]
    return [_linear("tangent connectivity", problem, TangentFeatures(scans))], []


def _linear(
    name: str, problem: Problem, features: Features, keep_name: bool = False, max_train: int | None = None
) -> Candidate:
    suffix = "ridge" if problem.task == "regression" else "logistic"
    return Candidate(name if keep_name else f"{name} + {suffix}", features, LinearProbe(), True, max_train)


def _key(name: object) -> tuple[str, ...]:
    parts: Sequence[object] = name if isinstance(name, tuple) else (name,)
    return tuple(str(part) for part in parts)
