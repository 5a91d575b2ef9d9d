"""`probe --target age,sex,diagnosis`: a results folder for every target, and one table with p corrected for their number."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssl4neuro.atomic import new_folder
from ssl4neuro.data.embedding_table import open_embeddings
from ssl4neuro.data.embeddings import Unit
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.confounds import Confounds
from ssl4neuro.evaluate.crossval import Settings
from ssl4neuro.evaluate.probe import ProbeResult, posed, probe
from ssl4neuro.evaluate.results import aligned, number, p_text, write_results
from ssl4neuro.evaluate.targets import Answer, corrected, joint_null, summary, target_table

FORMAT, VERSION = "ssl4neuro targets", 1
METHOD = (
    "p corrected: family-wise over the targets, by the largest standardised statistic (first metric of each) under permutations"
    " that move all labels of a subject together (Westfall and Young 1993). A subject without some label changes places"
    " only with subjects that lack the same ones."
)


@dataclass(frozen=True)
class TargetsResult:
    """All targets of one run."""

    results: dict[str, ProbeResult]
    table: pd.DataFrame  # see `targets.COLUMNS`
    settings: dict[str, Any]
    out: Path | None = None


def probe_targets(
    embeddings: Path,
    targets: Sequence[str],
    *,
    out: Path | None,
    unit: Unit | None = None,
    site: str | None = None,
    nuisance: Sequence[str] | None = None,
    permutations: int = 1000,
    bootstrap: int = 2000,
    seed: int = 0,
    allow_overlap: bool = False,
    participants: Path | None = None,
    subject_column: str | None = None,
    features: Sequence[str] = (),
    **options: Any,
) -> TargetsResult:
    """Probe several targets of the same embeddings under shared permutations.

    Args:
        targets: each is probed as `probe` would.
        out: folder to write, with a results folder per target, targets.tsv and targets.json; None writes nothing.
        options: further ones of `probe`, the same for all targets.

    Raises:
        UserError: a target that is named twice or cannot be probed; `out` exists.
    """
    twice = [name for name in dict.fromkeys(targets) if list(targets).count(name) > 1]
    if twice:
        raise UserError(f"target: '{twice[0]}' is named twice")
    if out is not None and Path(out).exists():
        raise UserError(f"{out}: exists already; name another output folder or delete it")
    opened = open_embeddings(embeddings, participants, subject=subject_column, features=features)
    confounds = Confounds(site=site, nuisance=None if nuisance is None else tuple(nuisance))
    wanted = replace(confounds, preserve=tuple(options.get("preserve", ())), harmonise=options.get("harmonise"))
    problems = [
        posed(
            opened,
            target,
            unit,
            wanted,
            task=options.get("task"),
            positive=options.get("positive"),
            allow_overlap=allow_overlap,
        )
        for target in targets
    ]
    settings = Settings(permutations=permutations, bootstrap=bootstrap, seed=seed)
    results = [
        probe(
            embeddings, target=target, out=None, unit=unit, site=site, nuisance=nuisance, permutations=permutations,
            bootstrap=bootstrap, seed=seed, allow_overlap=allow_overlap, participants=participants,
            subject_column=subject_column, features=features, labels=labels, **options,
        )
        for target, labels in zip(targets, joint_null(problems, settings), strict=True)
    ]  # fmt: skip
    answers = corrected([Answer(p, r.outcomes, r.permutation) for p, r in zip(problems, results, strict=True)])
    results = [_with_rows(result, answer) for result, answer in zip(results, answers, strict=True)]
    found = TargetsResult(dict(zip(targets, results, strict=True)), target_table(answers, settings), results[0].settings)
    return found if out is None else replace(found, out=_write(found, Path(out)))


def _with_rows(result: ProbeResult, answer: Answer) -> ProbeResult:
    rows = tuple(row for outcome in answer.outcomes for row in outcome.rows)
    return replace(result, rows=rows, outcomes=answer.outcomes)


def _write(found: TargetsResult, out: Path) -> Path:
    record = {
        "format": FORMAT, "version": VERSION, "targets": list(found.results), "folders": [_folder(t) for t in found.results],
        "settings": found.settings, "method": METHOD, "rows": summary(found.table),
    }  # fmt: skip
    with new_folder(out) as folder:
        for target, result in found.results.items():
            write_results(result, folder / _folder(target))
        found.table.to_csv(folder / "targets.tsv", sep="\t", index=False)
        (folder / "targets.json").write_text(json.dumps(record, indent=1, allow_nan=False), encoding="utf-8")
    return out


def _folder(target: str) -> str:
    return target.replace("/", "_").replace("\\", "_")


def render(found: TargetsResult) -> str:
    """Plain text table for the terminal."""
    cells = [["target", "model", "metric", "value", "95 % CI", "p", "p corrected", "subjects"]]
    for row in found.table.to_dict("records"):
        between = "-" if np.isnan(row["ci_low"]) else f"{row['ci_low']:.3f} to {row['ci_high']:.3f}"
        cells.append([
            row["target"], row["model"], row["metric"], number(row["value"]), between, p_text(row["p"]),
            p_text(row["p_corrected"]), str(row["n_subjects"]),
        ])  # fmt: skip
    stamps = [f"STAMP {name}: {result.stamp}" for name, result in found.results.items() if result.stamp]
    return "\n".join([f"{len(found.results)} targets", "", *aligned(cells), "", *stamps, METHOD])
