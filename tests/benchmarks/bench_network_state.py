"""The network-state study under the microscope: `python tests/benchmarks/bench_network_state.py null|cohorts|study [...]`.

null [TRIALS]            false-positive rate of exchanges with fixed models, plain and widened by sqrt(2), for a linear
                         classifier in folds; expected: plain 8-15 % at nominal 5 %, widened at most 6.7 %
cohorts [COUNT]          whole stage two without an encoder on simulated cohorts without effect: mean AUC 0.5 ± 0.03, and
                         Kolmogorov-Smirnov p of the study's p-values
study OUT [SUBJECTS]     the shipped recipe with trained encoders, effect on, off and confounded (an hour on two cores)
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.linear_model import LogisticRegression

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.evaluate.folds import subject_folds
from ssl4neuro.evaluate.metrics import weighted_auc
from ssl4neuro.evaluate.network_state import InnerSplit, StageTwo, Study, render_study, score_fold, study_items
from ssl4neuro.evaluate.network_state.items import WHOLE
from ssl4neuro.evaluate.network_state.results import evaluate_study
from ssl4neuro.heads.network_state import HeadConfig
from ssl4neuro.train.network_state import network_state
from ssl4neuro.train.network_state_config import NetworkStateConfig

DESIGNS = ((20, 2), (56, 2), (56, 10), (56, 40), (56, 157), (20, 157))  # subjects, features


def null_trial(subjects: int, dim: int, seed: int, folds: int = 5, permutations: int = 199) -> tuple[float, float]:
    """p of a cohort without effect: fixed models as they are, and with the null's spread widened."""
    rng = np.random.default_rng([subjects, dim, seed])
    x = (rng.normal(size=(subjects, 1, dim)) + rng.normal(size=(subjects, 2, dim))).reshape(2 * subjects, dim)
    y, who = np.tile([0, 1], subjects), np.repeat(np.arange(subjects), 2)
    fold, score = (rng.permutation(subjects) % folds)[who], np.zeros(2 * subjects)
    for k in range(folds):
        model = LogisticRegression(C=0.1 if dim < 100 else 0.01).fit(x[fold != k], y[fold != k])
        score[fold == k] = model.decision_function(x[fold == k])
    flips = rng.integers(0, 2, size=(permutations, subjects))[:, who]
    labels = np.concatenate([y[None], y[None] ^ flips]).astype(np.float64)
    gap = weighted_auc(score, labels, 1 - labels) - 0.5
    counts = [(1 + (width * gap[1:] >= gap[0]).sum()) / (1 + permutations) for width in (1, np.sqrt(2))]
    return float(counts[0]), float(counts[1])


def null(trials: int) -> None:
    """One line per design."""
    for subjects, dim in DESIGNS:
        p = np.array([null_trial(subjects, dim, seed) for seed in range(trials)])
        rates, ks = (p <= 0.05).mean(0), [stats.kstest(column[:200], "uniform").pvalue for column in p.T]
        told = f"plain {rates[0]:.3f} (KS p {ks[0]:.4f}), widened {rates[1]:.3f} (KS p {ks[1]:.4f})"
        print(f"{subjects} subjects, {dim:3d} features, {trials} cohorts: false positives {told}", flush=True)


def prepared(folder: Path, subjects: int, seed: int, **options: object) -> Path:
    """A simulated cohort, through the files that a user has."""
    from ssl4neuro.cli import main

    flags = [
        part for name, value in options.items() for part in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]
    main(["simulate", "ica", str(folder / "raw"), "--subjects", str(subjects), "--seed", str(seed), *flags])
    scans = sorted(map(str, (folder / "raw").glob("sub-*/ses-*")))
    tables = ["--participants", str(folder / "raw/participants.tsv"), "--sessions", str(folder / "raw/sessions.tsv")]
    main(["prepare", "ica", str(folder / "cohort"), "--melodic", *scans, *tables])
    return folder / "cohort"


def without_encoder(cohort: Cohort, seed: int) -> Study:
    """Stage two in nested folds, with random numbers in the embedding's place."""
    config = StageTwo(head=HeadConfig(ensemble=1))
    items = study_items(cohort)
    embedding = np.random.default_rng(seed).normal(size=(len(items), 16)).astype(np.float32)
    who, found = pd.factorize(items["subject"])[0].astype(np.int64), []
    for number, fold in enumerate(subject_folds(who, np.ones(len(who), dtype=bool), 5, seed)):
        inner = subject_folds(who[fold.train], np.ones(len(fold.train), dtype=bool), 4, seed)[0]
        split = InnerSplit(fold.train[inner.train], fold.train[inner.test], embedding)
        found.append(score_fold(cohort, items, embedding, *fold, [split], fold=number, config=config, seed=seed))
    scores, embeddings, scans = (pd.concat(tables, ignore_index=True) for tables in list(zip(*found, strict=True))[:3])
    return Study(scores, embeddings, scans)


def cohorts(count: int) -> None:
    """AUC and p of the whole brain over cohorts without effect."""
    lines = []
    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            cohort = Cohort.open(prepared(Path(folder), 30, seed, effect=0.0))
            result = evaluate_study(without_encoder(cohort, seed), {}, bootstrap=0, permutations=199, seed=seed)
        row = result.row("network state", WHOLE, "AUC")
        lines.append((row.value, row.p))
    auc, p = np.array(lines, dtype=np.float64).T
    ks = stats.kstest(p, "uniform").pvalue
    print(f"{count} cohorts without effect: mean AUC {auc.mean():.3f}, p <= 0.05 in {(p <= 0.05).mean():.3f}, KS p {ks:.3f}")


def study(out: Path, subjects: int) -> None:
    """The shipped recipe, three times."""
    from ssl4neuro.config import load
    from ssl4neuro.shipped import find_recipe

    recipe = load(NetworkStateConfig, Path(find_recipe("network_state")), [])
    for name, options in {"effect": {}, "null": {"effect": 0.0}, "confounded": {"confounded": True}}.items():
        data = prepared(out / name, subjects, 3, **options)
        run = network_state(replace(recipe, data=str(data), out=str(out / name / "run")))
        print(f"\n{name}\n{render_study(Path(str(run)) / 'results')}", flush=True)


if __name__ == "__main__":
    kind, *rest = sys.argv[1:] or ["null"]
    if kind == "study":
        study(Path(rest[0]), int(rest[1]) if len(rest) > 1 else 56)
    else:
        {"null": null, "cohorts": cohorts}[kind](int(rest[0]) if rest else {"null": 500, "cohorts": 20}[kind])
