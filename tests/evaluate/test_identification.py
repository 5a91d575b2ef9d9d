"""Identification against a plain loop, on constructed data, and on real scans."""

from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from ssl4neuro.data.embeddings import Embeddings
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.connectivity import fnc
from ssl4neuro.evaluate.identification import fold_galleries, identify, identify_embeddings, scan_vectors, split_half_fnc


def test_equals_the_plain_loop_with_galleries() -> None:
    rng = np.random.default_rng(0)
    own = rng.normal(size=(20, 15))
    first, second = own + 1.5 * rng.normal(size=own.shape), own + 1.5 * rng.normal(size=own.shape)
    subjects = np.array([f"s{i:02d}" for i in range(20)])
    galleries = fold_galleries(subjects, 5, seed=3)
    assert np.bincount(galleries).tolist() == [4] * 5
    for code in (None, galleries):
        hits = 0
        for a, b in ((first, second), (second, first)):
            for i in range(20):
                candidates = [j for j in range(20) if code is None or code[j] == code[i]]
                hits += max(candidates, key=lambda j: np.corrcoef(a[j], b[i])[0, 1]) == i
        found = identify(first, second, subjects, galleries=code, bootstrap=200, permutations=199)
        assert found.accuracy == pytest.approx(hits / 40)
        assert found.chance == pytest.approx(0.05 if code is None else 0.25)
        assert found.gallery == (20 if code is None else 4)
        assert 0 <= found.ci_low <= found.accuracy <= found.ci_high <= 1


def test_perfect_and_meaningless_vectors() -> None:
    rng = np.random.default_rng(1)
    own, subjects = rng.normal(size=(12, 30)), np.arange(12)
    perfect = identify(own, own + 0.01 * rng.normal(size=own.shape), subjects, permutations=199)
    assert perfect.accuracy == 1
    assert perfect.ci_low == pytest.approx(0.025 ** (1 / 12))
    assert perfect.p == pytest.approx(1 / 200)
    ps = [
        identify(rng.normal(size=(12, 9)), rng.normal(size=(12, 9)), subjects, bootstrap=0, permutations=99).p
        for _ in range(60)
    ]
    assert np.mean(np.array(ps) <= 0.05) <= 0.15
    flat = identify(np.ones((12, 5)), np.ones((12, 5)), subjects, bootstrap=0, permutations=9)
    assert flat.accuracy == pytest.approx(1 / 12)  # a collapsed embedding identifies by accident
    with pytest.raises(UserError, match="needs two subjects"):
        identify(own[:1], own[:1], subjects[:1])
    with pytest.raises(UserError, match="not finite"):
        identify(np.full((3, 2), np.nan), np.ones((3, 2)), np.arange(3))


def test_from_a_cohort_and_from_embeddings(tiny: SimpleNamespace) -> None:
    first, second, table = split_half_fnc(tiny.cohort)
    courses = tiny.cohort.fetch(np.arange(6, 12), ("course",))["course"]  # the second scan
    np.testing.assert_allclose(first[1], fnc([c[:30] for c in courses]))
    np.testing.assert_allclose(second[1], fnc([c[30:] for c in courses]))
    assert table.iloc[1].tolist() == ["sub-00", "ses-pre", ""]
    maps, _ = scan_vectors(tiny.cohort, "maps")
    expected = tiny.cohort.fetch(np.arange(6, 12), ("map",))["map"].astype(np.float32).ravel()
    np.testing.assert_array_equal(maps[1], expected)
    found = identify_embeddings(Embeddings.open(tiny.path), bootstrap=50, permutations=19)
    assert found.n_subjects == 8  # unseen
    assert identify_embeddings(Embeddings.open(tiny.path), allow_overlap=True, bootstrap=50, permutations=19).n_subjects == 12


def test_real_subjects_are_identified_from_half_a_scan(shared_data: Path) -> None:
    """rest20: 97.5 % in both directions from the connectivity of 53 components (courses by plain least squares)."""
    root = shared_data / "rest20"
    mask = nib.load(root / "mask.nii.gz").get_fdata() > 0
    maps = nib.load(root / "neuromark53_maps.nii.gz").get_fdata()[mask]
    solve = np.linalg.pinv(maps - maps.mean(0))
    first, second, names = [], [], []
    for folder in sorted(root.glob("sub-*")):
        bold = nib.load(next(folder.glob("func/*_bold.nii.gz"))).get_fdata()[mask]
        courses = solve @ (bold - bold.mean(0))
        middle = courses.shape[1] // 2
        first.append(fnc(list(courses[:, :middle])))
        second.append(fnc(list(courses[:, middle:])))
        names.append(folder.name)
    found = identify(np.stack(first), np.stack(second), np.array(names), permutations=199)
    assert found.n_subjects == 20
    assert found.accuracy >= 0.9
    assert found.p == pytest.approx(1 / 200)
