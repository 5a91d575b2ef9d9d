"""Label efficiency: nested sets of training subjects, the main result's test folds, one set for every model."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.crossval import Candidate, Settings, evaluate, make_folds
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.label_efficiency import COLUMNS, label_efficiency, subject_order, summary
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.majority import MajorityProbe
from ssl4neuro.evaluate.probe import probe
from ssl4neuro.evaluate.problem import Problem, pose

SETTINGS = Settings(permutations=0, bootstrap=0)


class Recorder(ArrayFeatures):
    """Remembers the rows that each fold was fitted on and tested on."""

    def __init__(self, matrix: np.ndarray) -> None:
        super().__init__(matrix)
        self.calls: list[tuple[np.ndarray, np.ndarray]] = []

    def fold(self, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.calls.append((train, test))
        return super().fold(train, test)


def _problem(labels: list[str] | np.ndarray, scans: int = 2) -> tuple[Problem, np.ndarray]:
    subjects = np.repeat([f"s{i:02d}" for i in range(len(labels))], scans)
    table = pd.DataFrame({"subject": subjects, "session": np.tile(np.arange(scans), len(labels)).astype(str)})
    y = np.repeat(np.asarray(labels), scans)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(len(y), 6)).astype(np.float32)
    x[:, 0] += 2.5 * (pd.factorize(y)[0] if y.dtype.kind in "UO" else y / 10)
    return pose(table, pd.Series(y), "label", "session"), x


def _candidates(x: np.ndarray) -> list[Candidate]:
    from ssl4neuro.evaluate.features import ConstantFeatures

    noise = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    return [
        Candidate("x", Recorder(x), LinearProbe()),
        Candidate("noise", Recorder(noise), LinearProbe(), baseline=True),
        Candidate("majority", ConstantFeatures(), MajorityProbe(), baseline=True, informative=False),
    ]


def test_sets_are_nested_balanced_and_shared_and_the_whole_is_the_main_result() -> None:
    problem, x = _problem(["a"] * 24 + ["b"] * 8)
    candidates = _candidates(x)
    table = label_efficiency(problem, candidates, SETTINGS, (0.02, 0.1, 0.3, 1.0), draws=3)
    assert tuple(table.columns) == COLUMNS
    assert set(table["model"]) == {"x", "noise"}
    a, b = (candidate.features.calls for candidate in candidates[:2])  # type: ignore[attr-defined]
    assert len(a) == 5 * (3 * 3 + 1)
    for (train, test), (other, other_test) in zip(a, b, strict=True):
        np.testing.assert_array_equal(train, other)
        np.testing.assert_array_equal(test, other_test)
    folds = make_folds(problem, SETTINGS)[0]
    for number, fold in enumerate(folds):
        same = [train for train, test in a if np.array_equal(test, fold.test)]
        assert len(same) == 10
        for draw in (same[:3], same[4:6], same[7:9]):
            for small, large in itertools.pairwise(draw):
                assert set(small) <= set(large)
        for train in same:
            assert set(problem.y[train]) == {0.0, 1.0}
            assert set(train) <= set(fold.train)
            assert not set(problem.subjects[train]) & set(problem.subjects[fold.test])
            assert all(
                (problem.subjects[fold.train] == s).sum() == (problem.subjects[train] == s).sum()
                for s in problem.subjects[train]
            )
        assert number < 5
    outcomes, _ = evaluate(problem, candidates, SETTINGS)
    whole = table[(table["fraction"] == 1) & (table["model"] == "x")].set_index("metric")["value"]
    for row in outcomes[0].rows:
        assert whole[row.metric] == row.value
    means = table[(table["metric"] == "AUC")].groupby(["model", "n_train_subjects"])["value"].mean()
    assert means["x"].iloc[-1] > means["x"].iloc[0] + 0.1
    assert means["noise"].max() < 0.7


def test_fractions_that_come_to_the_same_subjects_are_done_once() -> None:
    problem, x = _problem(["a", "b"] * 8)
    table = label_efficiency(problem, _candidates(x)[:1], SETTINGS, (0.01, 0.02, 0.05, 0.95, 1.0), draws=2)
    sizes = table.groupby("fraction")["n_train_subjects"].unique().map(list).to_dict()
    assert sizes == {0.01: [2], 0.95: [12], 1.0: [13]}
    assert (table[table["fraction"] == 1]["repeat"] == 0).all()
    pd.testing.assert_frame_equal(
        table, label_efficiency(problem, _candidates(x)[:1], SETTINGS, (0.01, 0.02, 0.05, 0.95), draws=2)
    )
    text = summary(table, "AUC")
    assert text.startswith("label efficiency (AUC, mean of 2 draws of training subjects): x ")
    assert "with 13" in text


def test_values_need_no_classes_and_scan_labels_need_a_subject_only() -> None:
    problem, x = _problem(np.arange(20) * 3.5)
    table = label_efficiency(problem, _candidates(x)[:1], SETTINGS, (0.01, 1.0), draws=2)
    assert set(table["metric"]) == {"R2", "MAE", "Spearman"}
    assert table["n_train_subjects"].min() == 2
    states = pd.Series(["pre", "post"] * 10)
    within = pose(
        pd.DataFrame({"subject": np.repeat(np.arange(10), 2), "session": ["1", "2"] * 10}), states, "state", "session"
    )
    order, least = subject_order(within, np.arange(20), np.random.default_rng(0))
    assert sorted(order) == list(range(10))
    assert least == 2  # one has both states; two, so that the penalty can be chosen


def test_proportions_hold_in_every_prefix() -> None:
    problem, _ = _problem(["a"] * 30 + ["b"] * 10, scans=1)
    for seed in range(5):
        order, least = subject_order(problem, np.arange(40), np.random.default_rng(seed))
        assert least == 2
        share = np.cumsum(problem.y[order]) / np.arange(1, 41)
        assert np.abs(share[7:] - 0.25).max() < 0.13


@pytest.mark.parametrize(
    ("options", "message"), [({"fractions": (0.0, 1.0)}, "from above 0 to 1"), ({"draws": 0}, "at least one draw")]
)
def test_refusals(options: dict, message: str) -> None:
    problem, x = _problem(["a", "b"] * 8)
    with pytest.raises(UserError, match=message):
        label_efficiency(problem, _candidates(x), SETTINGS, **options)


def test_the_results_folder_has_table_figure_and_summary(tiny: SimpleNamespace, tmp_path: Path) -> None:
    fast = {"permutations": 0, "bootstrap": 50, "baselines": False}
    result = probe(tiny.path, target="state", out=tmp_path / "out", label_efficiency=(0.2, 0.5), prefix=(2,), **fast)
    table = pd.read_csv(tmp_path / "out" / "label_efficiency.tsv", sep="\t")
    assert set(table["model"]) == {"joint", "joint[:2]"}
    assert set(table["fraction"]) == {0.2, 0.5, 1.0}
    assert (tmp_path / "out" / "label_efficiency.png").stat().st_size > 10_000
    assert any(note.startswith("label efficiency (AUC") for note in result.notes)
