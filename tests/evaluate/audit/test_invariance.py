"""The contract of every probe and every feature class: nothing but the training rows is fitted on."""

import ast
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import ssl4neuro.evaluate as evaluate
from ssl4neuro.evaluate.audit import fold_invariance, label_invariance, probe_invariance
from ssl4neuro.evaluate.audit.invariance import difference, with_other_rows
from ssl4neuro.evaluate.clip_baselines import ImagePCA
from ssl4neuro.evaluate.features import (
    ArrayFeatures,
    ConstantFeatures,
    GramPCA,
    MapPCA,
    MapRows,
    NuisanceFeatures,
    TangentFeatures,
)
from ssl4neuro.evaluate.harmonise import HarmonisedFeatures
from ssl4neuro.evaluate.majority import MajorityProbe
from ssl4neuro.evaluate.network_state.baselines import TemplateBands
from ssl4neuro.evaluate.network_state.compact import Compact, StageTwoFeatures
from ssl4neuro.evaluate.prefix import PrefixFeatures
from ssl4neuro.evaluate.probes import PROBES
from ssl4neuro.evaluate.residualise import ResidualFeatures
from ssl4neuro.evaluate.site_decodability import SomeRows

RNG = np.random.default_rng(0)
TRAIN, TEST = np.arange(40), np.arange(40, 60)
X = RNG.normal(size=(60, 8)).astype(np.float32)
SITES = np.tile(["A", "B", "C"], 20)
TABLE = pd.DataFrame({"age": RNG.normal(40, 9, 60), "sex": RNG.choice(["F", "M"], 60)})
COURSES = [[RNG.normal(size=(50, 4))] for _ in range(60)]


def _cohort(x: np.ndarray) -> Any:
    return SimpleNamespace(fetch=lambda rows, modalities: {"map": x[rows]})


class _Maps(MapRows):
    def __init__(self, x: np.ndarray) -> None:
        self.cohort, self.rows = _cohort(x), np.arange(len(x))


class _MapPCA(MapPCA):
    __init__ = _Maps.__init__


class _Bands(TemplateBands):
    def __init__(self, x: np.ndarray, bands: np.ndarray) -> None:
        self.maps, self.bands, self.networks = _Maps(x), bands, np.tile(["dmn", "sm"], 30)


MADE: dict[type, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    ArrayFeatures: (ArrayFeatures, (X,)),
    ConstantFeatures: (lambda x: ConstantFeatures(), (X,)),
    GramPCA: (lambda x: GramPCA(x.astype(np.float64) @ x.T), (X,)),
    MapRows: (_Maps, (X,)),
    MapPCA: (_MapPCA, (X,)),
    ImagePCA: (ImagePCA, (X,)),
    NuisanceFeatures: (NuisanceFeatures, (TABLE,)),
    TangentFeatures: (TangentFeatures, (COURSES,)),
    HarmonisedFeatures: (lambda x, s, t: HarmonisedFeatures(ArrayFeatures(x), s, t), (X, SITES, TABLE)),
    ResidualFeatures: (lambda x, t: ResidualFeatures(ArrayFeatures(x), t), (X, TABLE)),
    PrefixFeatures: (lambda x: PrefixFeatures(ArrayFeatures(x), 3), (X,)),
    SomeRows: (lambda x: SomeRows(ArrayFeatures(x), np.arange(60)), (X,)),
    StageTwoFeatures: (
        lambda r, c, e: StageTwoFeatures(Compact(r, c), np.tile(["dmn", "sm"], 30), e, components=3),
        (X, X[:, :3] + 1, X[:, 3:]),
    ),
    TemplateBands: (_Bands, (X, X[:, :3] + 1)),
}  # fmt: skip


def _feature_classes() -> set[str]:
    """Classes of the package with a method `fold(self, train, test)`, read from the sources."""
    found = set()
    for file in Path(evaluate.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef) or node.name == "Features":
                continue
            methods = [m for m in node.body if isinstance(m, ast.FunctionDef) and m.name == "fold"]
            if methods:
                assert [argument.arg for argument in methods[0].args.args] == ["self", "train", "test"], node.name
                found.add(node.name)
    return found


def test_every_feature_class_is_under_this_contract() -> None:
    assert _feature_classes() == {kind.__name__ for kind in MADE}


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_features_fit_on_training_rows_alone(kind: type) -> None:
    make, data = MADE[kind]
    check = fold_invariance(make, *data, train=TRAIN, test=TEST)
    assert check.status == "passed", check.detail


@pytest.mark.parametrize(
    ("name", "task"),
    [(n, t) for n in PROBES for t in ("binary", "multiclass", "regression") if (n, t) != ("template", "regression")],
)
def test_probes_fit_on_training_rows_alone(name: str, task: Any) -> None:
    probe = PROBES[name]()
    if hasattr(probe, "steps"):
        probe.steps = 10
    check = probe_invariance(probe, task=task, classes=3 if task == "multiclass" else 2)
    assert check.status == "passed", check.detail


def test_majority_probe_fits_on_training_rows_alone() -> None:
    assert probe_invariance(MajorityProbe(1)).status == "passed"


class _Global:
    """Subtracts the mean of the rows asked for in the whole fold: leaks, although it holds nothing fitted."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def fold(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = self.x[np.concatenate([train, test])].mean(0)
        return self.x[train] - mean, self.x[test] - mean


class _TestCentred(_Global):
    def fold(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.x[train], self.x[test] - self.x[test].mean(0)


def test_leaks_of_either_kind_are_told_apart() -> None:
    both = fold_invariance(_Global, X, train=TRAIN, test=TEST)
    assert both.status == "flagged"
    assert "training rows change" in both.detail
    between = fold_invariance(_TestCentred, X, train=TRAIN, test=TEST)
    assert between.status == "flagged"
    assert between.detail.startswith("test rows change")


def test_replacing_rows_changes_these_and_no_others() -> None:
    numbers, words, table, ragged = with_other_rows((X, SITES, TABLE, COURSES), TEST, 0)
    assert (numbers[TRAIN] == X[TRAIN]).all()
    assert (numbers[TEST] != X[TEST]).all()
    assert (words[TRAIN] == SITES[TRAIN]).all()
    assert (words[TEST] != SITES[TEST]).all()
    pd.testing.assert_frame_equal(table.iloc[TRAIN], TABLE.iloc[TRAIN])
    assert (table.iloc[TEST]["age"] != TABLE.iloc[TEST]["age"]).all()
    assert all(ragged[row] is COURSES[row] for row in TRAIN)
    assert all(ragged[row][0].shape == COURSES[row][0].shape for row in TEST)


def test_label_invariance_of_values_permutes_them() -> None:
    y = RNG.normal(size=60)
    assert label_invariance(lambda labels: X[TEST] * labels[TRAIN].mean(), y, TEST).status == "passed"
    assert label_invariance(lambda labels: X[TEST] * labels[TEST][0], y, TEST).status == "flagged"


def test_difference_is_relative_to_the_largest_value() -> None:
    assert difference(np.array([100.0, 1.0]), np.array([100.0, 2.0])) == pytest.approx(0.01)
    assert difference(np.array([1.0]), np.array([1.0 + 1e-7])) == 0
    assert difference(np.zeros(3), np.zeros(2)) == float("inf")
