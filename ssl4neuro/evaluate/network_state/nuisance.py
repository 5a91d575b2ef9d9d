"""What age, motion, image quality, length, number of components and scanner say alone, and what is left without them."""

from dataclasses import replace

import numpy as np
import pandas as pd
from jaxtyping import Float

from ssl4neuro.evaluate.baselines import NUISANCE_ONLY
from ssl4neuro.evaluate.covariates import Design
from ssl4neuro.evaluate.features import NuisanceFeatures
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.network_state.cells import Cells, make_cells
from ssl4neuro.evaluate.network_state.items import COUNT, SCAN, SCAN_NUISANCES, WHOLE
from ssl4neuro.evaluate.network_state.metrics import auc
from ssl4neuro.evaluate.network_state.swap import swapped_labels
from ssl4neuro.evaluate.residualise import LARGEST_SHARE
from ssl4neuro.evaluate.statistics import p_value

MAJORITY = "majority"


def nuisance_columns(scans: pd.DataFrame) -> list[str]:
    """Nuisance variables that there are and that vary between scans."""
    columns = [c for c in dict.fromkeys((*SCAN_NUISANCES, COUNT)) if c in scans]
    return [c for c in columns if scans[c].nunique(dropna=False) > 1]


def fixed_columns(scans: pd.DataFrame) -> list[str]:
    """Those with one value per subject: they cannot differ between a subject's scans. None where nobody has both states."""
    several = scans[scans.groupby("subject")["state"].transform("nunique") > 1]
    if not len(several):
        return []
    counts = several.groupby("subject")[nuisance_columns(scans)].nunique(dropna=False)
    return [str(column) for column in counts if counts[column].max() == 1]


def nuisance_scores(scans: pd.DataFrame, after: str, permutations: int, seed: int) -> tuple[pd.DataFrame, float | None]:
    """Lines of the nuisance-only model in the study's folds, and the p of its AUC.

    Logistic regression, its penalty chosen in inner folds. It costs little, so that the permutation test refits it under states
    exchanged within subjects, which is exact; the networks' own test cannot (see `swap`).

    Args:
        scans: held-out scans of every fold with their nuisance variables.
        after: the later state.
    """
    columns = nuisance_columns(scans)
    if not columns:
        return scans.iloc[:0], None
    lines, outputs = [], []
    ordered = scans.sort_values(["repeat", *SCAN]).reset_index(drop=True)
    first = ordered[ordered["repeat"] == ordered["repeat"].min()]
    cells = make_cells(first.assign(probability=0.5, network=WHOLE), after)
    labels = np.concatenate([cells.y[None], swapped_labels(cells, permutations, seed)]).T.astype(np.float64)
    for _, own in ordered.groupby("repeat"):
        table, subject = own[columns].reset_index(drop=True), cells.subject
        features, fold = NuisanceFeatures(table), own["fold"].to_numpy()
        probability = np.full(labels.shape, 0.5)
        for number in np.unique(fold):
            train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
            if len(train) and len(np.unique(cells.y[train])) == 2:
                x, x_test = features.fold(train, test)
                scores = LinearProbe().prepare(x, x_test, subject[train], "binary", 2, seed)(labels[train])
                assert scores.probability is not None
                probability[test] = scores.probability[:, :, 0]
        outputs.append(probability)
        lines.append(own.assign(probability=probability[:, 0]))
    null = _auc_columns(outputs, labels)
    p = p_value(float(null[0]), null[1:]) if len(null) > 1 else None
    return _as_scores(pd.concat(lines, ignore_index=True), NUISANCE_ONLY), p


def _auc_columns(outputs: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
    from scipy.stats import rankdata

    positive = labels == 1
    count = positive.sum(0)
    rank_sums = np.mean([(rankdata(p, axis=0) * positive).sum(0) for p in outputs], axis=0)
    return (rank_sums - count * (count + 1) / 2) / (count * (len(labels) - count))


def majority_scores(scans: pd.DataFrame, after: str) -> pd.DataFrame:
    """Lines of a model that knows only how frequent the states are, in all folds alike."""
    share = float((scans["state"] == after).mean())
    return _as_scores(scans.assign(probability=share), MAJORITY)


def _as_scores(lines: pd.DataFrame, model: str) -> pd.DataFrame:
    p = lines["probability"].clip(1e-6, 1 - 1e-6)
    table = lines.assign(model=model, baseline=True, network=WHOLE, component=-1, logit=np.log(p) - np.log1p(-p))
    kept = ["repeat", "fold", "model", "baseline", *SCAN, "state", "network", "component", "site", "logit", "probability"]
    return table[kept]


def residual_cells(cells: Cells, scans: pd.DataFrame) -> Cells | None:
    """Logits without their linear prediction from the nuisance variables, fitted on the scans of the other folds.

    None where there are no nuisance variables, or more than half as many regressors as scans to fit them on.
    """
    columns = nuisance_columns(scans)
    if not columns or cells.folds < 2:
        return None
    first = scans[scans["repeat"] == scans["repeat"].min()]
    table = cells.scans[SCAN].merge(first[[*SCAN, *columns]], on=SCAN, how="left", validate="one_to_one")[columns]
    left: Float[np.ndarray, "cells repeats"] = np.empty_like(cells.logit)
    for repeat, fold in enumerate(cells.fold.T):
        for number in np.unique(fold):
            train, test = fold != number, fold == number
            design = Design(table[train])
            if len(design.names) > LARGEST_SHARE * train.sum():
                return None
            z = cells.logit[:, repeat]
            weights = np.linalg.lstsq(design.matrix(table[train]), z[train] - z[train].mean(), rcond=None)[0]
            left[test, repeat] = z[test] - design.matrix(table[test]) @ weights
    return replace(cells, logit=left)


def auc_difference(one: Cells, other: Cells, weights: Float[np.ndarray, "draws cells"]) -> Float[np.ndarray, "draws"]:
    """AUC of `one` minus that of `other`, which hold the same scans in the same order."""
    return auc(one, weights) - auc(other, weights)
