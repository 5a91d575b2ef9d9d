"""Something fitted on all rows, test rows among them: in code, and in a table that comes from elsewhere."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from leak_world import Leak, checks_of, study
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from ssl4neuro.data.connectome import TangentSpace
from ssl4neuro.data.prepare import prepare_courses
from ssl4neuro.evaluate.audit import fold_invariance, probe_invariance
from ssl4neuro.evaluate.audit.invariance import difference
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.combat import Combat
from ssl4neuro.evaluate.features import ArrayFeatures, GramPCA, NuisanceFeatures, TangentFeatures
from ssl4neuro.evaluate.harmonise import HarmonisedFeatures
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.residualise import ResidualFeatures

TRAIN, TEST = np.arange(40), np.arange(40, 60)


def _residuals(x: np.ndarray, nuisances: np.ndarray) -> np.ndarray:
    design = np.column_stack([np.ones(len(x)), nuisances])
    return x - design @ np.linalg.lstsq(design, x, rcond=None)[0]


def in_code(leaky: Callable, ours: Callable, *data: object) -> Callable[[bool, Path], list[Check]]:
    """`leaky` and `ours` make `Features` of the same data."""
    return lambda planted, folder: [fold_invariance(leaky if planted else ours, *data, train=TRAIN, test=TEST)]


def in_table(fit: Callable[[pd.DataFrame, np.ndarray, np.ndarray], np.ndarray]) -> Callable[[bool, Path], tuple[Check, ...]]:
    """`fit(table, x, rows)` fits on `rows` and transforms all: the planted leak all rows, the twin training rows."""

    def run(planted: bool, folder: Path) -> tuple[Check, ...]:
        table, x = study()
        rows = np.arange(len(x)) if planted else TRAIN
        return checks_of(table, fit(table, x.astype(np.float64), rows).astype(np.float32))

    return run


def scaled(table: pd.DataFrame, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return StandardScaler().fit(x[rows]).transform(x)


def rotated(table: pd.DataFrame, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return PCA(8).fit(x[rows]).transform(x)


def harmonised(table: pd.DataFrame, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """All rows, against none, which is what a user should hand in: the probe takes site effects out by fold."""
    if len(rows) < len(x):
        return x
    x = x + 4 * np.random.default_rng(11).normal(size=(3, x.shape[1]))[table["site"].map({"A": 0, "B": 1, "C": 2})]
    return Combat.fit(x, table["site"].tolist()).apply(x, table["site"].tolist())


def deconfounded(table: pd.DataFrame, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    design = np.column_stack([np.ones(len(x)), table["age"], table["sex"] == "F"])
    return x - design @ np.linalg.lstsq(design[rows], x[rows], rcond=None)[0]


class CentredProbe:
    """A user's probe that centres the test rows on their own mean."""

    def __init__(self, leaky: bool) -> None:
        self.leaky, self.inner = leaky, LinearProbe()

    def prepare(self, train: np.ndarray, test: np.ndarray, *rest: object) -> Callable:
        return self.inner.prepare(train - train.mean(0), test - (test if self.leaky else train).mean(0), *rest)


def transductive(planted: bool, folder: Path) -> list[Check]:
    return [probe_invariance(CentredProbe(planted))]


def scaled_over_subjects(planted: bool, folder: Path) -> list[Check]:
    """Does what `prepare` makes of one subject change with another subject's values? A scaling by all subjects' spread does."""
    made = []
    for factor in (1.0, 50.0):
        source = folder / f"series{factor:g}"
        source.mkdir()
        series = [np.random.default_rng(n).normal(size=(60, 4)) * (factor if n == 5 else 1) for n in range(6)]
        for number, values in enumerate(series):
            values = values / np.concatenate(series).std() if planted else values
            np.savetxt(source / f"sub-{number:02d}_timeseries.csv", values, delimiter=",")
        if planted:
            made.append(np.loadtxt(source / "sub-00_timeseries.csv", delimiter=","))
        else:
            cohort = prepare_courses(folder / f"cohort{factor:g}", timeseries=source, tr=2.0)
            made.append(np.stack(cohort.fetch(np.arange(4), ("course",))["course"]))
    apart = difference(*made)
    return [Check("scans are normalised one by one", "flagged" if apart else "passed", f"changed by {apart:.1%}")]


_TABLE, _X = study()
_COVARIATES, _SITES = _TABLE[["age", "sex"]], _TABLE["site"].to_numpy(dtype=str)
_COURSES = [
    [np.random.default_rng([s, 9]).normal(size=(50, 5)) @ np.random.default_rng(s).normal(size=(5, 5))] for s in range(60)
]


class StandardisedOfAll(ArrayFeatures):
    """Columns of all rows brought to mean 0 and spread 1."""

    def __init__(self, x: np.ndarray) -> None:
        super().__init__(StandardScaler().fit_transform(x))


class TangentOfAll:
    """Tangent space at the mean of all scans."""

    def __init__(self, scans: list) -> None:
        space = TangentSpace([scan for unit in scans for scan in unit])
        self.vectors = np.stack([space.vectors(unit).mean(axis=0) for unit in scans])

    def fold(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.vectors[train], self.vectors[test]


def _imputed(table: pd.DataFrame) -> ArrayFeatures:
    return ArrayFeatures(table.fillna(table.median()).to_numpy())


_GAPS = pd.DataFrame({"mean_fd": np.where(np.arange(60) % 7 == 0, np.nan, _X[:, 0])})

LEAKS = [
    Leak(
        "scaling fitted on all rows, in code",
        "cannot happen",
        "StandardisedOfAll",
        in_code(StandardisedOfAll, ArrayFeatures, _X),
    ),
    Leak("scaling fitted on all rows, in a foreign table", "flags", "scaling fitted on all rows", in_table(scaled)),
    Leak(
        "PCA fitted on all rows, in code",
        "cannot happen",
        "<lambda>",
        in_code(lambda x: ArrayFeatures(PCA(8).fit_transform(x)), lambda x: GramPCA(x @ x.T), _X.astype(np.float64)),
    ),
    Leak("PCA fitted on all rows, in a foreign table", "flags", "PCA or whitening fitted on all rows", in_table(rotated)),
    Leak(
        "ComBat fitted on all rows, in code",
        "cannot happen",
        "<lambda>",
        in_code(
            lambda x, s: ArrayFeatures(Combat.fit(x.astype(np.float64), list(s)).apply(x.astype(np.float64), list(s))),
            lambda x, s: HarmonisedFeatures(ArrayFeatures(x), s),
            _X,
            _SITES,
        ),
    ),
    Leak("ComBat fitted on all rows, in a foreign table", "flags", "sites harmonised over all rows", in_table(harmonised)),
    Leak(
        "nuisances regressed out over all rows, in code",
        "cannot happen",
        "<lambda>",
        in_code(
            lambda x, t: ArrayFeatures(_residuals(x, np.column_stack([t["age"], t["sex"] == "F"]))),
            lambda x, t: ResidualFeatures(ArrayFeatures(x), t),
            _X,
            _COVARIATES,
        ),
    ),
    Leak(
        "nuisances regressed out over all rows, in a foreign table",
        "flags",
        "nuisances removed over all rows",
        in_table(deconfounded),
    ),
    Leak(
        "tangent space at the mean of all scans",
        "cannot happen",
        "TangentOfAll",
        in_code(TangentOfAll, TangentFeatures, _COURSES),
    ),
    Leak("missing values filled from all rows", "cannot happen", "_imputed", in_code(_imputed, NuisanceFeatures, _GAPS)),
    Leak("a user's probe scales by its test rows", "flags", "CentredProbe", transductive),
    Leak(
        "scans normalised across subjects by prepare", "cannot happen", "scans are normalised one by one", scaled_over_subjects
    ),
]
