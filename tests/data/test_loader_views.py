"""Rows become tensors: padding, scattering, missing modalities, order, and the same result with loader workers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl4neuro.augment import AUGMENTATIONS
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.loader import CohortRows, encode_labels, load_batches, pad
from ssl4neuro.data.views import Views
from ssl4neuro.errors import UserError


@pytest.fixture(scope="module")
def cohort(make_cohort: Callable[..., Cohort], tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return make_cohort(tmp_path_factory.mktemp("loader") / "cohort")


def test_stored_batches_hold_what_the_cohort_holds(cohort: Cohort) -> None:
    rows = np.array([5, 0, 20])
    batch = CohortRows(cohort, ("map", "course"), {"state": np.arange(len(cohort))}).__getitems__(rows.tolist())
    assert batch["row"].tolist() == rows.tolist()
    assert batch["targets"]["state"].tolist() == rows.tolist()
    assert batch["subject"].tolist() == cohort.index["subject_code"][rows].tolist()
    lengths = cohort.index["length"][rows].tolist()
    assert batch["valid"]["course"].sum(1).tolist() == lengths
    for i, row in enumerate(rows):
        expected = cohort.fetch(np.array([row]))
        assert torch.equal(batch["inputs"]["map"][i], torch.from_numpy(expected["map"][0]))
        assert torch.equal(batch["inputs"]["course"][i, : lengths[i]], torch.from_numpy(expected["course"][0]))
        assert (batch["inputs"]["course"][i, lengths[i] :] == 0).all()


def test_a_missing_modality_is_said_to_be_absent(make_cohort: Callable[..., Cohort], tmp_path: Path) -> None:
    courses = make_cohort(tmp_path / "courses", maps=False)
    batch = CohortRows(courses, ("map", "course")).__getitems__([0, 1])
    assert batch["present"]["map"].tolist() == [False, False]
    assert batch["present"]["course"].tolist() == [True, True]
    assert "map" not in batch["inputs"]
    with pytest.raises(UserError, match=r"has course, none of map"):
        CohortRows(courses, ("map",))


@pytest.mark.parametrize("workers", [0, 2])
def test_order_does_not_depend_on_workers(cohort: Cohort, workers: int) -> None:
    wanted = [np.array([3, 1]), np.array([7]), np.array([0, 2, 4])]
    found = [batch["row"].tolist() for batch in load_batches(CohortRows(cohort, ("course",)), lambda: iter(wanted), workers)]
    assert found == [w.tolist() for w in wanted]


def test_loading_leaves_the_models_random_numbers_alone(cohort: Cohort) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(load_batches(CohortRows(cohort, ("course",)), lambda: iter([np.array([0])])))
    assert torch.equal(torch.rand(3), expected)


def test_scatter_puts_voxels_where_the_mask_has_them(cohort: Cohort) -> None:
    views = Views(cohort.mask, {}, {}, 0)
    stored = CohortRows(cohort, ("map", "course")).__getitems__([0, 9])
    batch = views(stored, None)
    volume, inside = batch["inputs"]["map"], torch.from_numpy(cohort.mask)
    assert volume.shape == (2, 1, 1, *inside.shape)
    for i, row in enumerate((0, 9)):
        expected = np.zeros(inside.shape, dtype=np.float32)
        expected[cohort.mask] = cohort.fetch(np.array([row]))["map"][0]
        assert torch.equal(volume[i, 0, 0], torch.from_numpy(expected))
    assert torch.equal(batch["valid"]["map"][0, 0], inside)


def test_views_depend_on_seed_epoch_and_row_only(cohort: Cohort) -> None:
    augment = {name: AUGMENTATIONS[kind]() for name, kind in (("map", "volume"), ("course", "course"))}
    make = Views(cohort.mask, augment, {"map": 2, "course": 2}, seed=3)
    rows = CohortRows(cohort, ("map", "course"))
    together = make(rows.__getitems__([4, 11]), 7)
    alone = make(rows.__getitems__([11]), 7)
    assert torch.equal(together["inputs"]["map"][1], alone["inputs"]["map"][0])
    length = alone["inputs"]["course"].shape[-1]
    assert torch.allclose(together["inputs"]["course"][1, :, :length], alone["inputs"]["course"][0], atol=1e-6)
    assert not torch.equal(together["inputs"]["map"][0, 0], together["inputs"]["map"][0, 1]), "two views differ"
    assert not torch.equal(make(rows.__getitems__([11]), 8)["inputs"]["map"], alone["inputs"]["map"]), "epochs differ"


def test_pad_and_encode_labels() -> None:
    values, valid = pad([np.ones(3, dtype=np.float32), np.ones(5, dtype=np.float32)])
    assert valid.sum(1).tolist() == [3, 5]
    assert values.sum().item() == 8
    codes, names = encode_labels(["post", None, "pre", float("nan"), "n/a", "post", 3])
    assert names == ["3", "post", "pre"]
    assert codes.tolist() == [1, -1, 2, -1, -1, 1, 0]
