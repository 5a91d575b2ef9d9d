"""Probe frozen embeddings for a label, beside its baselines: `probe` from disk, `probe_arrays` from memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from ssl4neuro.data.embedding_table import open_embeddings
from ssl4neuro.data.embeddings import Embeddings, Unit
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.audit import audit, copied_scans
from ssl4neuro.evaluate.baselines import cohort_baselines, open_cohort, simple_baselines
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.combat import UnseenSites
from ssl4neuro.evaluate.confounds import Confounds
from ssl4neuro.evaluate.crossval import Candidate, Outcome, Row, Settings, evaluate, provenance
from ssl4neuro.evaluate.embedding_candidates import embedding_candidates, layer_table
from ssl4neuro.evaluate.features import ArrayFeatures, with_scan_means
from ssl4neuro.evaluate.label_efficiency import FRACTIONS, summary
from ssl4neuro.evaluate.label_efficiency import label_efficiency as efficiency_table
from ssl4neuro.evaluate.metrics import METRICS, Task
from ssl4neuro.evaluate.probes import PROBES
from ssl4neuro.evaluate.problem import Problem, default_unit, pose
from ssl4neuro.evaluate.result_tables import result_tables
from ssl4neuro.registry import Component, build

SOURCE = ("name", "run", "checkpoint_sha256", "cohort_sha256", "foreign", "table_sha256", "participants")
NO_COHORT = "no baselines from images or courses: a table of another tool names no cohort; name one with --cohort to have them"
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
    outcomes: tuple[Outcome, ...] = field(default=(), repr=False, compare=False)  # of every model, with its null distribution

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
    harmonise: Literal["combat"] | None = None,
    preserve: Sequence[str] = (),
    unseen_sites: UnseenSites = "refuse",
    nuisance: Sequence[str] | None = None,
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
    participants: Path | None = None,
    subject_column: str | None = None,
    features: Sequence[str] = (),
    prefix: Sequence[int] = (),
    label_efficiency: bool | Sequence[float] = False,
    equivalence_margin: float = 0.1,
    labels: tuple[Float[np.ndarray, "rows columns"], str] | None = None,
    show: bool = False,
) -> ProbeResult:
    """Cross-validated probe of embeddings, ours or another tool's. Splits, intervals and permutations are by subject.

    Args:
        embeddings: folder that `embed` wrote, or a parquet, CSV, TSV or npz file (see `data.embedding_table`).
        target: label column of sessions.tsv, participants.tsv, or a field of the samples such as `network`.
        out: results folder to write (atomically); None writes nothing.
        unit: unit of analysis; by default the level at which the target varies.
        column: embedding to probe; by default `joint`, otherwise every modality; `all` for every modality and `joint`;
            `layers` for every stage of the encoders and their outputs.
        site: column of sites: spread over the folds, and labels are permuted within a site.
        harmonise: take site effects out of embeddings and baselines, fitted on the training rows of every fold; needs `site`.
        preserve: columns whose effect harmonisation keeps, never the target.
        unseen_sites: refuse test rows of a site without training rows, or `pool`: take them as they are.
        nuisance: columns of the nuisance-only model, by default the usual ones; when given, every embedding is also probed with
            them regressed out.
        probe: name in `PROBES`, or `package.module:Class`.
        cohort: prepared cohort for the baselines; by default the one that was embedded.
        participants: further table of labels, by participant and session.
        subject_column, features: columns of a file, where their names do not say what they are.
        prefix: also evaluate the first k dimensions of each embedding, as `NAME[:k]`.
        label_efficiency: also train on fractions of the training subjects, by default 1 % to 100 %; see `label_efficiency`.
        equivalence_margin: of AUC and balanced accuracy around chance, for the test of equivalence; 0 for none.
        labels: true and permuted labels and how they were permuted, where targets share permutations (`targets.py`).
        show: progress bar on standard error.

    Raises:
        UserError: unknown target, column or probe; no unseen subjects; too few classes or subjects; cohort gone; `out` exists.
    """
    _check(folds, repeats, permutations, bootstrap)
    confounds = Confounds(site, harmonise, tuple(preserve), unseen_sites, None if nuisance is None else tuple(nuisance))
    model = build(PROBES, Component(probe), "probe")
    if out is not None and Path(out).exists():
        raise UserError(f"{out}: exists already; name another output folder or delete it")
    opened = open_embeddings(embeddings, participants, subject=subject_column, features=features)
    problem = posed(opened, target, unit, confounds, task=task, positive=positive, allow_overlap=allow_overlap)
    settings = Settings(folds, repeats, permutations, bootstrap, seed, leave_site_out, equivalence_margin)
    candidates = embedding_candidates(opened, problem, model, column, prefix)
    notes = list(opened.notes)
    if baselines:
        foreign = opened.info.get("foreign") and cohort is None
        more, told = ([], [NO_COHORT]) if foreign else cohort_baselines(problem, open_cohort(opened, cohort))
        candidates += [*more, *simple_baselines(problem, site, nuisance)]
        notes += told
    treated = confounds.candidates(problem, candidates, leave_site_out)  # refuses before anything takes time
    tables, more_notes = confounds.tables(problem, candidates, settings)
    checks = audit(problem, candidates, settings, source=opened, cohort=cohort, covariates=confounds.columns)
    tables |= copied_scans(problem, candidates, checks)
    candidates = treated
    outcomes, scheme = evaluate(problem, candidates, settings, labels=labels, show=show)
    if label_efficiency:
        fractions = FRACTIONS if label_efficiency is True else label_efficiency
        tables["label_efficiency"] = efficiency_table(problem, candidates, settings, fractions, show=show)
        more_notes = [*more_notes, summary(tables["label_efficiency"], next(iter(METRICS[problem.task])))]
    if column == "layers":
        tables["layers"] = layer_table([row for outcome in outcomes for row in outcome.rows])
    source = {
        "embeddings": str(embeddings),
        **{k: opened.info.get(k) for k in SOURCE},
    }
    result = _result(problem, probe, candidates, outcomes, scheme, settings, [*notes, *more_notes], source)
    result = _with_confounds(replace(result, checks=checks), confounds, candidates, tables)
    if out is None:
        return result
    from ssl4neuro.evaluate.results import write_results

    write_results(result, Path(out))
    return replace(result, out=Path(out))


def posed(
    opened: Embeddings,
    target: str,
    unit: Unit | None,
    confounds: Confounds,
    *,
    task: Task | None = None,
    positive: str | None = None,
    allow_overlap: bool = False,
) -> Problem:
    """The problem of one target of opened embeddings, at the level at which it varies unless named."""
    unit = unit or default_unit(opened, target)
    table = opened.table(unit)
    if target not in table.columns:
        better = default_unit(opened, target)
        raise UserError(f"target: '{target}' is no property of a {unit}; use --unit {better}")
    if unit == "subject":
        numbers = [c for c in confounds.columns if c != confounds.site]
        table = with_scan_means(table, opened.table("session"), numbers, target)
    return pose(
        table, table[target], target, unit, task=task, site=confounds.site, positive=positive, allow_overlap=allow_overlap
    )


def probe_arrays(
    features: Mapping[str, Float[np.ndarray, "rows _"]],
    y: Shaped[np.ndarray, "rows"] | Sequence[Any],
    subjects: Shaped[np.ndarray, "rows"] | Sequence[Any],
    *,
    seen: Bool[np.ndarray, "rows"] | None = None,
    scans: Shaped[np.ndarray, "rows"] | Sequence[Any] | None = None,
    sites: Shaped[np.ndarray, "rows"] | Sequence[Any] | None = None,
    baselines: Mapping[str, Float[np.ndarray, "rows _"]] | None = None,
    covariates: Mapping[str, Shaped[np.ndarray, "rows"] | Sequence[Any]] | None = None,
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
    harmonise: Literal["combat"] | None = None,
    preserve: Sequence[str] = (),
    unseen_sites: UnseenSites = "refuse",
    nuisance: Sequence[str] | None = None,
    allow_overlap: bool = False,
    equivalence_margin: float = 0.1,
) -> ProbeResult:
    """The same probe on arrays in memory; `baselines` get the linear probe, and the majority class is added.

    Args:
        features: name -> vectors, one line per row.
        scans: scan of each row where rows are components; by default every row is its own scan.
        covariates: name -> values, for `preserve` and `nuisance`; with one of them the nuisance-only model is run.
    """
    _check(folds, repeats, permutations, bootstrap)
    model = build(PROBES, Component(probe), "probe")
    table = pd.DataFrame({"subject": np.asarray(subjects).astype(str)})
    table["session"] = np.arange(len(table)).astype(str) if scans is None else np.asarray(scans).astype(str)
    table["seen"] = np.zeros(len(table), dtype=bool) if seen is None else seen
    if sites is not None:
        table["site"] = np.asarray(sites)
    table = table.assign(**{name: np.asarray(values) for name, values in (covariates or {}).items()})
    site = "site" if sites is not None else None
    confounds = Confounds(site, harmonise, tuple(preserve), unseen_sites, None if nuisance is None else tuple(nuisance))
    problem = pose(
        table, pd.Series(np.asarray(y)), target, unit, task=task, site=site, positive=positive, allow_overlap=allow_overlap
    )
    settings = Settings(folds, repeats, permutations, bootstrap, seed, leave_site_out, equivalence_margin)
    candidates = [Candidate(name, ArrayFeatures(matrix[problem.kept]), model) for name, matrix in features.items()]
    linear = build(PROBES, Component("linear"), "probe")
    candidates += [Candidate(n, ArrayFeatures(m[problem.kept]), linear, True) for n, m in (baselines or {}).items()]
    simple = simple_baselines(problem, site, nuisance)
    candidates += simple if covariates else [c for c in simple if not c.informative]
    treated = confounds.candidates(problem, candidates, leave_site_out)  # refuses before anything takes time
    tables, notes = confounds.tables(problem, candidates, settings)
    checks = audit(problem, candidates, settings, covariates=confounds.columns)
    tables |= copied_scans(problem, candidates, checks)
    candidates = treated
    outcomes, scheme = evaluate(problem, candidates, settings)
    result = _result(problem, probe, candidates, outcomes, scheme, settings, notes, {})
    return _with_confounds(replace(result, checks=checks), confounds, candidates, tables)


def _with_confounds(
    result: ProbeResult, confounds: Confounds, candidates: list[Candidate], tables: dict[str, pd.DataFrame]
) -> ProbeResult:
    check, notes = confounds.check(result.rows, candidates)
    return replace(
        result, checks=(*result.checks, check), notes=(*result.notes, *notes), tables=result.tables | tables,
        settings=result.settings | {"confounds": confounds.record()},
    )  # fmt: skip


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
        tables=result_tables(problem, candidates, outcomes, settings),
        outcomes=tuple(outcomes),
    )
