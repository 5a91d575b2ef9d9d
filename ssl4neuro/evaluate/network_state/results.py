"""Everything that the held-out scores of a study say, in memory."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from ssl4neuro.evaluate.baselines import NUISANCE_ONLY
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.network_state.checks import nuisance_check, study_checks
from ssl4neuro.evaluate.network_state.differences import auc_differences
from ssl4neuro.evaluate.network_state.fold import HEAD, LOGISTIC
from ssl4neuro.evaluate.network_state.items import WHOLE
from ssl4neuro.evaluate.network_state.nuisance import MAJORITY, majority_scores, nuisance_scores, residual_cells
from ssl4neuro.evaluate.network_state.recovery import mean_recovery, recovery_scores
from ssl4neuro.evaluate.network_state.space import space_table
from ssl4neuro.evaluate.network_state.study import Study
from ssl4neuro.evaluate.network_state.table import Row, cells_of, model_rows, swap_ps
from ssl4neuro.evaluate.residualise import SUFFIX


@dataclass(frozen=True)
class StudyResult:
    """A study's numbers.

    Attributes:
        rows: of all models.
        scores: with the nuisance-only model and the majority.
        recovery: per subject and network; see `recovery_scores`.
        mean_recovery: per network.
        differences: of the study's model to the others in AUC; see `auc_differences`.
        space: of the held-out embeddings; see `space_table`.
        checks: of the study, then those that came with `record`.
        record: as given to `evaluate_study`.
    """

    rows: tuple[Row, ...]
    scores: pd.DataFrame
    embeddings: pd.DataFrame
    recovery: pd.DataFrame
    mean_recovery: pd.DataFrame
    differences: pd.DataFrame
    space: pd.DataFrame
    checks: tuple[Check, ...]
    record: dict[str, Any]
    settings: dict[str, Any]

    def row(self, model: str, network: str, metric: str) -> Row:
        """One row.

        Raises:
            KeyError: there is none.
        """
        for row in self.rows:
            if (row.model, row.network, row.metric) == (model, network, metric):
                return row
        raise KeyError((model, network, metric))

    @property
    def model(self) -> str:
        """The study's own: the head, or the first model that is no baseline."""
        own = [row.model for row in self.rows if not row.baseline]
        return HEAD if HEAD in own else own[0]


def evaluate_study(
    study: Study, record: dict[str, Any], *, after: str = "post", bootstrap: int = 2000, permutations: int = 1000, seed: int = 0
) -> StudyResult:
    """Metrics, tests, recovery scores, geometry and checks.

    Args:
        study: see `pool`.
        record: what the report should know; JSON-ready. `lesion_masks` and `checks` enter the checks.
        after: the later state, the positive class.
    """
    alone, p_alone = nuisance_scores(study.scans, after, permutations, seed)
    scores = pd.concat([study.scores, alone, majority_scores(study.scans, after)], ignore_index=True)
    found = cells_of(scores, after)
    baseline = dict(zip(scores["model"], scores["baseline"].astype(bool), strict=True))
    rows: list[Row] = []
    for model, cells in found.items():
        p = {WHOLE: p_alone} if model == NUISANCE_ONLY else swap_ps(cells, permutations, seed)
        p = {} if model == MAJORITY else p
        rows += model_rows(model, cells, baseline=baseline[model], p=p, bootstrap=bootstrap, seed=seed)
        if not baseline[model] and model in (HEAD, LOGISTIC):
            left = {name: residual_cells(own, study.scans) for name, own in cells.items()}
            without = {name: own for name, own in left.items() if own is not None}
            p = swap_ps(without, permutations, seed)
            residual = model_rows(model + SUFFIX, without, baseline=False, p=p, bootstrap=bootstrap, seed=seed)
            rows += [row for row in residual if row.metric == "AUC"]  # residuals are no probabilities
    model = HEAD if HEAD in found else next(name for name in found if not baseline[name])
    checks = study_checks(study.scores, study.scans, record.get("lesion_masks"))
    judged = [_whole_auc(rows, name) for name in (model, NUISANCE_ONLY, model + SUFFIX)]
    other = found.get(NUISANCE_ONLY, {}).get(WHOLE)
    known = [row for row in judged if row is not None]
    checks.append(nuisance_check(found[model][WHOLE], other, study.scans, known, p_alone, bootstrap=bootstrap, seed=seed))
    given = [Check(**check) for check in record.get("checks") or ()]
    recovery = recovery_scores(scores[scores["model"] == model], after, study.embeddings)
    return StudyResult(
        rows=tuple(rows),
        scores=scores,
        embeddings=study.embeddings,
        recovery=recovery,
        mean_recovery=mean_recovery(recovery, bootstrap, seed),
        differences=auc_differences(found, model, baseline, draws=bootstrap, seed=seed),
        space=space_table(study.embeddings, after, draws=bootstrap, seed=seed),
        checks=(*checks, *given),
        record=record,
        settings={"after": after, "bootstrap": bootstrap, "permutations": permutations, "seed": seed, "model": model},
    )


def _whole_auc(rows: list[Row], model: str) -> Row | None:
    return next((r for r in rows if (r.model, r.network, r.metric) == (model, WHOLE, "AUC")), None)
