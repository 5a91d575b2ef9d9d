"""All checks of one evaluation, in the order in which a reader wants them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.embeddings import Embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.audit.confounded import confounded
from ssl4neuro.evaluate.audit.copies import NAME as COPIES
from ssl4neuro.evaluate.audit.copies import TABLE as COPY_TABLE
from ssl4neuro.evaluate.audit.copies import copies, copy_table
from ssl4neuro.evaluate.audit.encoder import encoder
from ssl4neuro.evaluate.audit.evidence import Evidence
from ssl4neuro.evaluate.audit.fitted import fitted
from ssl4neuro.evaluate.audit.giveaway import giveaways
from ssl4neuro.evaluate.audit.invariance import probe_invariance
from ssl4neuro.evaluate.audit.people import people
from ssl4neuro.evaluate.audit.permuting import DRAWS, permuting
from ssl4neuro.evaluate.audit.permuting import NAME as PERMUTED
from ssl4neuro.evaluate.baselines import open_cohort
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.crossval import Candidate, Settings, make_folds, null_labels
from ssl4neuro.evaluate.problem import Problem

OURS = "ssl4neuro."


def audit(
    problem: Problem,
    candidates: Sequence[Candidate],
    settings: Settings,
    *,
    source: Embeddings | None = None,
    cohort: Cohort | Path | None = None,
    covariates: Sequence[str] = (),
) -> tuple[Check, ...]:
    """Look for leaks in one evaluation. Nothing is stopped or changed; about a second for 1,000 scans.

    Tests of association share one family-wise level of 1 % and must be material besides (a correlation or V of 0.4, an AUC of
    0.70); the other checks look for coincidences that do not happen by chance.

    Args:
        candidates: as they are evaluated; vectors are looked at where they are `ArrayFeatures`.
        source: where the embeddings come from.
        cohort: prepared cohort of the same scans; by default the one that `source` names, if it is still there.
        covariates: columns that are removed, preserved or given to a probe, beside the usual nuisances.
    """
    folds = make_folds(problem, settings)
    evidence = Evidence(problem, candidates, folds, source, _cohort(source, cohort), tuple(covariates), settings.seed)
    checks = [*people(evidence), copies(evidence), *encoder(evidence), *fitted(evidence), *giveaways(evidence)]
    return (*checks, *confounded(evidence), _permutations(problem, settings), *_foreign_probes(evidence))


def copied_scans(problem: Problem, candidates: Sequence[Candidate], checks: Sequence[Check]) -> dict[str, pd.DataFrame]:
    """Table of the scans that are taken for the same one under two IDs, where that check is flagged."""
    if not any(check.name == COPIES and check.status == "flagged" for check in checks):
        return {}
    return {COPY_TABLE: copy_table(Evidence(problem, candidates, []))}


def summary(checks: Sequence[Check]) -> str:
    """`leak checks: 17 passed, 1 flagged (site or scanner: site predicts the target (site: AUC 0.98)), 3 not checkable`."""
    count = {status: [c for c in checks if c.status == status] for status in ("passed", "flagged", "not checkable")}
    told = "; ".join(f"{c.name}: {c.detail}" for c in count["flagged"])
    flagged = f"{len(count['flagged'])} flagged" + (f" ({told})" if told else "")
    return f"leak checks: {len(count['passed'])} passed, {flagged}, {len(count['not checkable'])} not checkable"


def _cohort(source: Embeddings | None, given: Cohort | Path | None) -> Cohort | None:
    if isinstance(given, Cohort) or source is None:
        return given if isinstance(given, Cohort) else None
    try:
        return open_cohort(source, given)
    except UserError:  # what only a cohort shows is then reported as not checkable
        return None


def _permutations(problem: Problem, settings: Settings) -> Check:
    few = replace(settings, permutations=min(DRAWS, settings.permutations))
    try:
        labels, _ = null_labels(problem, few)
    except UserError as error:  # the evaluation stops with it; without permutations it goes on, and the site check says why
        return Check(PERMUTED, "not checkable", str(error))
    return permuting(problem.y, labels[:, 1:], problem.subjects)


def _foreign_probes(evidence: Evidence) -> list[Check]:
    """Probes that are not ours are tried out on made-up data; ours are in their contract test."""
    probes = {type(c.probe): c.probe for c in evidence.candidates if not type(c.probe).__module__.startswith(OURS)}
    problem = evidence.problem
    return [probe_invariance(probe, task=problem.task, classes=max(2, len(problem.classes))) for probe in probes.values()]
