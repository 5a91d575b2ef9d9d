"""The simulated operation: where the cavity lies, what it does to the maps, and that nothing else changes."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl4neuro.simulate.cavity import HYPOTHALAMUS, REST, VERTEX, draw_lesion
from ssl4neuro.simulate.cohort import IcaSettings, SimulatedCohort
from ssl4neuro.simulate.ica import simulate_ica

SETTINGS = IcaSettings(subjects=3, networks=2, resolution=10.0, cavity=True)


def test_the_hamartoma_is_in_the_cavity_and_the_cavity_reaches_the_vertex() -> None:
    xyz = np.argwhere(np.ones((60, 60, 60))) * 3.0 - [90, 90, 60]
    for seed in range(10):
        hamartoma, cavity = draw_lesion(np.random.default_rng(seed), xyz)
        assert (cavity | ~hamartoma).all()
        assert np.linalg.norm(xyz[hamartoma] - HYPOTHALAMUS, axis=1).max() < 15
        assert 6 < cavity.sum() * 0.027 < 60  # ml
        assert xyz[cavity][:, 2].max() > VERTEX[2] - 3


def test_the_operation_empties_the_maps_after_it_and_nothing_else() -> None:
    whole, operated = SimulatedCohort(replace(SETTINGS, cavity=False)), SimulatedCohort(SETTINGS)
    for index in range(3):
        (_, (pre, post)), (_, (plain_pre, plain_post)) = operated.subject(index), whole.subject(index)
        hamartoma, cavity = operated.lesion(index)
        np.testing.assert_array_equal(pre.maps, plain_pre.maps)
        np.testing.assert_array_equal(post.maps[:, ~cavity], plain_post.maps[:, ~cavity])
        np.testing.assert_allclose(post.maps[:, cavity], REST * plain_post.maps[:, cavity], rtol=1e-5)
        np.testing.assert_array_equal(post.courses, plain_post.courses)
        np.testing.assert_array_equal(pre.lesion, hamartoma)
        np.testing.assert_array_equal(post.lesion, cavity)
        assert plain_post.lesion is None


def test_masks_are_written_beside_the_scans(tmp_path: Path) -> None:
    data = simulate_ica(tmp_path / "hh", subjects=3, networks=2, resolution=10.0, cavity=True, show=False)
    cohort = SimulatedCohort(SETTINGS)
    for index in range(3):
        for session, expected in zip(("pre", "post"), cohort.lesion(index), strict=True):
            name = f"sub-00{index + 1}"
            image = nib.load(data / "lesions" / name / f"{name}_ses-{session}_label-lesion_mask.nii.gz")
            np.testing.assert_array_equal(np.asarray(image.dataobj)[cohort.brain.mask] > 0, expected)
            np.testing.assert_array_equal(image.affine, cohort.brain.affine)
    assert len(list((data / "lesions").rglob("*.nii.gz"))) == 6
