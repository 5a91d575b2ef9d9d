"""Signs of copies, of visits with IDs of their own, and of fits on all rows; names and files."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import MinMaxScaler, RobustScaler, StandardScaler

from ssl4neuro.data.association import Labels
from ssl4neuro.data.scan_properties import file_pattern, id_patterns, kind_of
from ssl4neuro.evaluate.audit import summary
from ssl4neuro.evaluate.audit.copies import same_scans
from ssl4neuro.evaluate.audit.fitted import decorrelated, scaling, site_shares
from ssl4neuro.evaluate.audit.giveaway import telling
from ssl4neuro.evaluate.audit.people import same_stem
from ssl4neuro.evaluate.check import Check
from ssl4neuro.evaluate.probe import probe
from ssl4neuro.evaluate.results import render

RNG = np.random.default_rng(0)
X = RNG.normal(2, 3, size=(80, 6))


@pytest.mark.parametrize("dim", [3, 8, 40])
def test_dimension_is_estimated_and_no_pair_is_a_copy(dim: int) -> None:
    x = np.random.default_rng(dim).normal(size=(500, dim))
    found = same_scans(x, np.arange(500))
    assert not len(found.pairs)
    distance = NearestNeighbors(n_neighbors=3).fit((x - x.mean(0)) / x.std(0)).kneighbors()[0]
    oracle = np.log(2) / np.log(np.median(distance[:, 1] / distance[:, 0]))
    assert found.dimension == pytest.approx(oracle, rel=0.05)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_copies_are_found_under_other_ids_only(noise: float) -> None:
    x = np.random.default_rng(1).normal(size=(60, 12))
    again = np.concatenate([x, x[:3] + noise * np.random.default_rng(2).normal(size=(3, 12))])
    assert same_scans(again, np.arange(63)).pairs.tolist() == [[0, 60], [1, 61], [2, 62]]
    assert not len(same_scans(again, np.r_[np.arange(60), 0, 1, 2]).pairs)  # a subject may be scanned twice


def test_half_the_cohort_twice_is_still_found() -> None:
    x = np.random.default_rng(3).normal(size=(40, 10))
    assert len(same_scans(np.concatenate([x, x + 1e-5]), np.arange(80)).pairs) == 40


@pytest.mark.parametrize(
    ("names", "extra"),
    [
        (["S1_v1", "S1_v2", "S2_v1"], 1),
        (["01-pre", "01-post", "02-pre", "02-post"], 2),
        (["sub-07", "sub-07_aug3"], 1),
        (["sub01ses1", "sub01ses2"], 1),
        (["con_01", "con_02", "pat_01"], 0),
        (["v1", "v2", "v3"], 0),
        (["sub_612_fl", "sub_613_fl", "sub_615"], 0),
        (["A001", "A002", "B001"], 0),
        (["NDARAB12", "NDARAB13"], 0),
    ],
)
def test_visits_as_subjects(names: list[str], extra: int) -> None:
    assert same_stem(names)[0] == extra


@pytest.mark.parametrize("scaler", [StandardScaler(), MinMaxScaler(), RobustScaler()])
def test_scaling_over_all_rows_shows_and_over_some_does_not(scaler: object) -> None:
    assert scaling(scaler.fit_transform(X).astype(np.float32))
    assert not scaling(scaler.fit(X[:50]).transform(X).astype(np.float32))
    assert not scaling(X)


def test_decorrelation_over_all_rows() -> None:
    centred = X - X.mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2].T
    assert decorrelated((centred @ axes).astype(np.float32))
    part = X[:50] - X[:50].mean(0)
    assert not decorrelated(centred @ np.linalg.svd(part, full_matrices=False)[2].T)
    assert not decorrelated(RNG.normal(size=(5, 9)))  # fewer rows than columns are never uncorrelated


def test_site_share_is_that_of_an_analysis_of_variance() -> None:
    sites = np.arange(80) % 3
    z = (X - X.mean(0)) / X.std(0)
    between = sum((sites == s).sum() * (z[sites == s].mean(0) ** 2).sum() for s in range(3))
    assert site_shares(X, sites[None])[0] == pytest.approx(between / (z**2).sum(), rel=1e-4)


def test_a_feature_that_is_the_label() -> None:
    y = np.arange(80) % 2.0
    labels = Labels(y, 2)
    assert telling(X, labels) is None
    assert telling(np.column_stack([X, 3 - 2 * y]), labels) == 6
    assert telling(np.column_stack([X, y + 0.5 * RNG.normal(size=80)]), labels) is None  # four sd apart may be a marker
    values = Labels(RNG.normal(size=80), 0)
    assert telling(np.column_stack([values.values * 7, X]), values) == 0
    few = Labels(np.array([0.0, 0, 1, 1, 0, 1]), 2)
    assert telling(RNG.integers(0, 2, size=(6, 200)).astype(float), few) is None  # chance does that with six subjects


def test_names() -> None:
    assert file_pattern("controls/sub-01/sub-01_ses-1_bold.nii.gz", ("sub-01", "ses-1", "")) == ("controls//__bold", ".nii.gz")
    assert file_pattern("a/patient007_4d.nii", ("patient007",))[1] == ".nii"
    found = id_patterns(pd.Series(["sub-P012", "sub-C003"]))
    assert found["letters of the ID"].tolist() == ["P#", "C#"]
    assert found["number in the ID"].tolist() == [12, 3]
    kinds = {
        "scanner": "site or scanner",
        "MagneticFieldStrength": "site or scanner",
        "site": "site or scanner",
        "RepetitionTime": "geometry and file format",
    }
    kinds |= {"n_volumes": "scan length", "acq_time": "date and order", "meanIntensity": "intensity scale", "diagnosis": None}
    assert {name: kind_of(name) for name in kinds} == kinds


def test_summary_is_one_line() -> None:
    checks = [Check("a", "passed", ""), Check("site", "flagged", "AUC 0.98"), Check("b", "not checkable", "none")]
    assert summary(checks) == "leak checks: 1 passed, 1 flagged (site: AUC 0.98), 1 not checkable"


def test_probe_writes_the_copies_and_one_line(tmp_path: Path) -> None:
    """Through the whole command: a table of another tool in which one scan comes twice."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(40, 10)).astype(np.float32)
    x[39] = x[0] * 1.0001
    table = pd.DataFrame({"subject": [f"s{n:02d}" for n in rng.permutation(40)], "group": ["control", "patient"] * 20})
    pd.concat([table, pd.DataFrame(x).add_prefix("emb_")], axis=1).to_csv(tmp_path / "table.csv", index=False)
    result = probe(tmp_path / "table.csv", target="group", out=tmp_path / "out", permutations=5, bootstrap=10)
    found = pd.read_csv(tmp_path / "out" / "same_scans.tsv", sep="\t")
    assert set(found[["subject", "other_subject"]].to_numpy().ravel()) == set(table["subject"][[0, 39]])
    recorded = json.loads((tmp_path / "out" / "results.json").read_text())
    flagged = [check["name"] for check in recorded["checks"] if check["status"] == "flagged"]
    assert flagged == ["same scan under two IDs"]
    assert "1 flagged (same scan under two IDs: a pair of scans" in render(result)
