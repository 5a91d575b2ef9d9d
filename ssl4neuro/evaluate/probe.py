"""Probe frozen embeddings for a label, beside its baselines: `probe` from disk, `probe_arrays` from memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from ssl4neuro.data.embeddings import Embeddings, Unit
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.baselines import cohort_baselines, open_cohort, simple_baselines
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.crossval import Candidate, Outcome, Row, Settings, evaluate, provenance
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.metrics import Task
from ssl4neuro.evaluate.probes import PROBES
from ssl4neuro.evaluate.problem import Problem, default_unit, pose
from ssl4neuro.registry import Component, build

FEW_SUBJECTS = 8  # below, resampled subjects repeat so few arrangements that no percentile interval holds its level


@dataclass(frozen=True)
class ProbeResult:
    """Everything about one probe; `rows` are the numbers, embeddings first."""

    target: str
    task: Task
    unit: Unit
    classes: tuple[str, ...]
    probe: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    stamp: str | None  # "overlap: N of M test subjects were seen in pretraining"
    permutation: str  # how labels were permuted
    settings: dict[str, Any]
    predictions: pd.DataFrame
    confusion: dict[str, list[list[float]]]
    source: dict[str, Any]
    checks: tuple[Check, ...] = ()  # of the leak audit
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)  # further tables by name, each written as NAME.tsv
    out: Path | None = None

    def row(self, name: str, metric: str | None = None) -> Row:
        """The number of one model; its first metric unless named."""
        return next(row for row in self.rows if row.name == name and metric in (None, row.metric))


def probe(
    embeddings: Path,
    *,
    target: str,
    out: Path | None,
    unit: Unit | None = None,
    column: str | None = None,
    site: str | None = None,
    leave_site_out: bool = False,
    probe: str = "linear",
    task: Literal["binary", "multiclass", "regression"] | None = None,
    positive: str | None = None,
    folds: int = 5,
    repeats: int = 1,
    permutations: int = 1000,
    bootstrap: int = 2000,
    seed: int = 0,
    cohort: Path | None = None,
    baselines: bool = True,
    allow_overlap: bool = False,
    show: bool = False,
) -> ProbeResult:
    """Cross-validated probe of an embeddings folder. Splits, intervals and permutations are by subject.

    Args:
        target: label column of sessions.tsv, participants.tsv, or a field of the samples such as `network`.
        out: results folder to write (atomically); None writes nothing.
        unit: unit of analysis; by default the level at which the target varies.
        column: embedding to probe; by default `joint`, otherwise every modality; `all` for every modality and `joint`.
        site: column of sites: spread over the folds, and labels are permuted within a site.
        probe: name in `PROBES`, or `package.module:Class`.
        cohort: prepared cohort for the baselines; by default the one that was embedded.
        show: progress bar on standard error.

    Raises:
        UserError: unknown target, column or probe; no unseen subjects; too few classes or subjects; cohort gone; `out` exists.
    """
    _check(folds, repeats, permutations, bootstrap)
    model = build(PROBES, Component(probe), "probe")
    if out is not None and Path(out).exists():
        raise UserError(f"{out}: exists already; name another output folder or delete it")
    opened = Embeddings.open(embeddings)
    unit = unit or default_unit(opened, target)
    table = opened.table(unit)
    if target not in table.columns:
        better = default_unit(opened, target)
        raise UserError(f"target: '{target}' is no property of a {unit}; use --unit {better}")
    problem = pose(table, table[target], target, unit, task=task, site=site, positive=positive, allow_overlap=allow_overlap)
    settings = Settings(folds, repeats, permutations, bootstrap, seed, leave_site_out)
    pools = getattr(model, "bags", False)  # it pools the samples of a unit itself
    candidates = [
        Candidate(name, ArrayFeatures((opened.bags if pools else opened.matrix)(unit, name)[problem.kept]), model)
        for name in _columns(opened, unit, column)
    ]
    notes: list[str] = []
    if baselines:
        more, notes = cohort_baselines(problem, open_cohort(opened, cohort))
        candidates += [*more, *simple_baselines(problem, site)]
    outcomes, scheme = evaluate(problem, candidates, settings, show=show)
    source = {
        "embeddings": str(embeddings),
        **{k: opened.info.get(k) for k in ("name", "run", "checkpoint_sha256", "cohort_sha256")},
    }
    result = _result(problem, probe, candidates, outcomes, scheme, settings, notes, source)
    if out is None:
        return result
    from ssl4neuro.evaluate.results import write_results

    write_results(result, Path(out))
    return replace(result, out=Path(out))


def probe_arrays(
    features: Mapping[str, Float[np.ndarray, "rows _"]],
    y: Shaped[np.ndarray, "rows"] | Sequence[Any],
    subjects: Shaped[np.ndarray, "rows"] | Sequence[Any],
    *,
    seen: Bool[np.ndarray, "rows"] | None = None,
    scans: Shaped[np.ndarray, "rows"] | Sequence[Any] | None = None,
    sites: Shaped[np.ndarray, "rows"] | Sequence[Any] | None = None,
    baselines: Mapping[str, Float[np.ndarray, "rows _"]] | None = None,
    target: str = "label",
    unit: Unit = "session",
    task: Literal["binary", "multiclass", "regression"] | None = None,
    positive: str | None = None,
    probe: str = "linear",
    folds: int = 5,
    repeats: int = 1,
    permutations: int = 1000,
    bootstrap: int = 2000,
    seed: int = 0,
    leave_site_out: bool = False,
    allow_overlap: bool = False,
) -> ProbeResult:
    """The same probe on arrays in memory; `baselines` get the linear probe, and the majority class is added.

    Args:
        features: name -> vectors, one line per row.
        scans: scan of each row where rows are components; by default every row is its own scan.
    """
    _check(folds, repeats, permutations, bootstrap)
    model = build(PROBES, Component(probe), "probe")
    table = pd.DataFrame({"subject": np.asarray(subjects).astype(str)})
    table["session"] = np.arange(len(table)).astype(str) if scans is None else np.asarray(scans).astype(str)
    table["seen"] = np.zeros(len(table), dtype=bool) if seen is None else seen
    if sites is not None:
        table["site"] = np.asarray(sites)
    site = "site" if sites is not None else None
    problem = pose(
        table, pd.Series(np.asarray(y)), target, unit, task=task, site=site, positive=positive, allow_overlap=allow_overlap
    )
    settings = Settings(folds, repeats, permutations, bootstrap, seed, leave_site_out)
    candidates = [Candidate(name, ArrayFeatures(matrix[problem.kept]), model) for name, matrix in features.items()]
    linear = build(PROBES, Component("linear"), "probe")
    candidates += [Candidate(n, ArrayFeatures(m[problem.kept]), linear, True) for n, m in (baselines or {}).items()]
    candidates += [c for c in simple_baselines(problem) if not c.informative]
    outcomes, scheme = evaluate(problem, candidates, settings)
    return _result(problem, probe, candidates, outcomes, scheme, settings, [], {})


def _columns(embeddings: Embeddings, unit: Unit, column: str | None) -> list[str]:
    own = [name for name in embeddings.columns_of(unit) if not name.endswith("_projected")]
    if column is None:
        return ["joint"] if "joint" in own else own
    return own if column == "all" else [column]


def _check(folds: int, repeats: int, permutations: int, bootstrap: int) -> None:
    for name, value, least in (
        ("folds", folds, 2),
        ("repeats", repeats, 1),
        ("permutations", permutations, 0),
        ("bootstrap", bootstrap, 0),
    ):
        if value < least:
            raise UserError(f"{name}: must be at least {least}, got {value}")


def _result(
    problem: Problem, probe: str, candidates: list[Candidate], outcomes: list[Outcome], scheme: str, settings: Settings,
    notes: list[str], source: dict[str, Any],
) -> ProbeResult:  # fmt: skip
    tested = outcomes[0].rows[0].n_subjects
    few = [f"only {tested} subjects are tested: read the intervals as a rough guide"] if tested < FEW_SUBJECTS else []
    return ProbeResult(
        target=problem.target,
        task=problem.task,
        unit=problem.unit,
        classes=problem.classes,
        probe=probe,
        rows=tuple(row for outcome in outcomes for row in outcome.rows),
        notes=(*problem.notes, *notes, *few),
        stamp=problem.wall.stamp,
        permutation=scheme,
        settings=provenance(settings),
        predictions=pd.concat([outcome.predictions for outcome in outcomes], ignore_index=True),
        confusion={c.name: o.confusion for c, o in zip(candidates, outcomes, strict=True) if o.confusion is not None},
        source=source,
    )
