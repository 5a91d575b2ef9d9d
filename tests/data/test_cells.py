"""The smaller cohort of a study: chosen rows, the brain's box, one row per cell."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ssl4neuro.data.cells import aggregated, crop, write_cells
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.ica_cohort import IcaCohort
from ssl4neuro.data.scan import Grid, ScanRows
from ssl4neuro.errors import UserError
from ssl4neuro.manifest import Manifest


@pytest.fixture(scope="module")
def cohort(make_cohort: Callable[..., Cohort], tmp_path_factory: pytest.TempPathFactory) -> IcaCohort:
    found = make_cohort(tmp_path_factory.mktemp("cells") / "cohort", subjects=3, side=24)
    assert isinstance(found, IcaCohort)
    return found


def test_rows_keep_values_labels_and_identity(cohort: IcaCohort, tmp_path: Path) -> None:
    rows = np.flatnonzero((cohort.index["network"] == "net-1").to_numpy() & (cohort.index["subject"] != "sub-01").to_numpy())
    cells = write_cells(tmp_path / "cells", cohort, rows)
    columns = ["subject", "session", "run", "site", "network", "component", "tr", "length"]
    assert cells.index[columns].equals(cohort.index[columns].iloc[rows].reset_index(drop=True))
    own, source = cells.fetch(np.arange(len(rows))), cohort.fetch(rows)
    assert np.array_equal(own["map"], source["map"])
    assert all(np.array_equal(a, b) for a, b in zip(own["course"], source["course"], strict=True))
    assert cells.labels("state").tolist() == cohort.labels("state")[rows].tolist()
    assert set(cells.labels("age")) == {20, 22}
    assert set(cells.labels("n_components")) == {4}  # of the scan, not of what is left of it
    hashes = cohort.content_hashes()
    seen = Manifest.of(cells.name, [], {c for contents in cells.content_hashes().values() for c in contents})
    assert seen.overlap("another name", hashes) == ["sub-00", "sub-02"]


def test_the_box_holds_the_brain_where_it_was(cohort: IcaCohort, tmp_path: Path) -> None:
    cells = write_cells(tmp_path / "cells", cohort, np.arange(8))
    assert cohort.mask is not None
    assert cells.mask is not None
    assert cells.mask.shape == (20, 20, 20)  # 18 voxels and a margin, of 24
    assert cohort.affine is not None
    assert cells.affine is not None
    places = [np.argwhere(c.mask) @ c.affine[:3, :3].T + c.affine[:3, 3] for c in (cohort, cells)]
    assert np.array_equal(*places)  # mm of every in-mask voxel, in the same order


def test_crop_of_a_small_brain_is_large_enough_for_an_encoder() -> None:
    mask = np.zeros((30, 20, 12), dtype=bool)
    mask[25:28, 0:2, 3:5] = True
    grid = Grid(np.array([[0, -3.0, 0, 5], [2.0, 0, 0, 6], [0, 0, 4.0, 7], [0, 0, 0, 1]]), mask)
    found = crop(grid)
    assert found.mask.shape == (16, 16, 12)
    assert found.mask.sum() == mask.sum()
    world = [np.argwhere(g.mask) @ g.affine[:3, :3].T + g.affine[:3, 3] for g in (grid, found)]
    assert np.array_equal(*world)


def test_made_once_and_only_for_this_cohort(cohort: IcaCohort, tmp_path: Path) -> None:
    first = write_cells(tmp_path / "cells", cohort, np.arange(4))
    before = (first.path / "rows.arrow").stat().st_mtime_ns
    write_cells(tmp_path / "cells", cohort, np.arange(4))
    assert (first.path / "rows.arrow").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="rows of another cohort"):
        write_cells(tmp_path / "cells", cohort, np.arange(8))
    with pytest.raises(UserError, match="rows of another cohort"):
        write_cells(tmp_path / "cells", cohort, np.arange(4), aggregate=True)


def scan(courses: np.ndarray, maps: np.ndarray, network: list[str]) -> ScanRows:
    return ScanRows(courses=courses, tr=2.0, component=np.arange(1, len(network) + 1), network=network, maps=maps)


def test_aggregation_equals_principal_components_of_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(0)
    shared = rng.standard_normal(80)
    courses = np.stack([2 * shared, shared, rng.standard_normal(80), -shared]) + 0.5 * rng.standard_normal((4, 80))
    courses = (courses - courses.mean(1, keepdims=True)) / courses.std(1, keepdims=True)
    maps = rng.standard_normal((4, 50))
    found = aggregated(scan(courses, maps, ["a", "a", "b", "a"]))
    assert found.network == ["a", "b"]
    own = courses[[0, 1, 3]]
    pca = PCA(1).fit(own.T)
    course = pca.transform(own.T)[:, 0]
    assert abs(np.corrcoef(found.courses[0], course)[0, 1]) == pytest.approx(1, abs=1e-5)
    loading = np.abs(own @ course)
    expected = loading @ maps[[0, 1, 3]] / loading.sum()
    np.testing.assert_allclose(found.maps[0], (expected - expected.mean()) / expected.std(), atol=1e-4)
    assert found.component[0] == [1, 2, 4][int(loading.argmax())]
    assert np.corrcoef(found.courses[0], courses[0])[0, 1] > 0.5  # the sign that most components share
    np.testing.assert_allclose(found.courses[1], courses[2], atol=1e-5)  # one component alone stays what it is
    np.testing.assert_allclose(found.maps[1], (maps[2] - maps[2].mean()) / maps[2].std(), atol=1e-5)


def test_one_row_per_network_and_scan(cohort: IcaCohort, tmp_path: Path) -> None:
    cells = write_cells(tmp_path / "cells", cohort, np.arange(len(cohort)), aggregate=True)
    assert len(cells) == 3 * 2 * 2
    assert not cells.index.duplicated(["subject", "session", "network"]).any()
    maps = cells.fetch(np.arange(len(cells)))["map"].astype(np.float64)
    np.testing.assert_allclose(maps.mean(1), 0, atol=2e-3)
    np.testing.assert_allclose(maps.std(1), 1, atol=5e-3)
