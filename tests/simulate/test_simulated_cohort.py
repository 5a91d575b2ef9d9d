"""The generative model in memory: keyed streams, effect, nuisances, geometry."""

from dataclasses import replace

import numpy as np
import pytest

from ssl4neuro.errors import UserError
from ssl4neuro.simulate.cohort import UNITS, IcaSettings, MapModel, SimulatedCohort
from ssl4neuro.simulate.networks import NETWORKS, load_brain, network_map

SMALL = IcaSettings(subjects=4)


def same(one, other) -> bool:
    return (
        np.array_equal(one.maps, other.maps)
        and np.array_equal(one.courses, other.courses)
        and one.network == other.network
        and one.nuisance == other.nuisance
    )


def test_a_subject_does_not_depend_on_the_number_of_subjects():
    few, many = SimulatedCohort(SMALL), SimulatedCohort(replace(SMALL, subjects=300))
    (person, scans), (other_person, other_scans) = few.subject(3), many.subject(3)
    assert person.name == other_person.name
    assert person.site == other_person.site
    assert all(same(a, b) for a, b in zip(scans, other_scans, strict=True))


def test_subjects_sessions_and_seeds_differ():
    cohort, other = SimulatedCohort(SMALL), SimulatedCohort(replace(SMALL, seed=1))
    (_, first), (_, second), (_, reseeded) = cohort.subject(0), cohort.subject(1), other.subject(0)
    maps = [scan.maps for scan in (*first, second[0], reseeded[0])]
    assert all(not np.array_equal(maps[i], maps[j]) for i in range(4) for j in range(i))


def test_the_null_has_the_same_noise_and_no_effect():
    real, null = SimulatedCohort(SMALL), SimulatedCohort(replace(SMALL, effect=0.0))
    (_, scans), (_, null_scans) = real.subject(2), null.subject(2)
    assert same(scans[0], null_scans[0])  # before the operation nothing differs
    assert not same(scans[1], null_scans[1])
    assert not null.effects.any()
    assert null_scans[1].slope == pytest.approx(scans[1].slope - real.settings.courses.state)


def test_effect_is_in_part_of_the_network_and_of_the_stated_size():
    cohort = SimulatedCohort(SMALL)
    for name, effect in zip(cohort.names, cohort.effects, strict=True):
        node = NETWORKS[name][0]
        distance = np.linalg.norm(cohort.xyz - (node.x, node.y, node.z), axis=1)
        assert effect[distance < 12].min() > 0.0
        assert np.abs(effect[distance > 45]).max() < 1e-3
        assert effect.max() == pytest.approx(cohort.model.change, rel=0.25)
    changes = [person.change for person, _ in cohort]
    assert np.min(changes) >= 0.10
    assert np.max(changes) <= 0.30


def test_signs_are_random_and_order_is_shuffled():
    scans = [scan for _, scans in SimulatedCohort(replace(SMALL, subjects=20)) for scan in scans]
    signs = np.concatenate([scan.sign for scan in scans])
    assert 0.38 < (signs > 0).mean() < 0.62  # 200 fair coins, 3.4 sd
    assert len({tuple(scan.network) for scan in scans}) > 10
    assert all(sorted(scan.network) == sorted(NETWORKS) for scan in scans)


def test_sign_is_that_of_map_and_course_together():
    """Undoing it gives maps that correlate with their template, whatever the order."""
    cohort = SimulatedCohort(SMALL)
    for _, scans in cohort:
        for scan in scans:
            upright = scan.sign[:, None] * scan.maps
            for k, name in enumerate(scan.network):
                assert np.corrcoef(upright[k], cohort.templates[cohort.names.index(name)])[0, 1] > 0


def test_lengths_and_nuisances():
    scans = [scan for _, scans in SimulatedCohort(replace(SMALL, subjects=40, networks=1)) for scan in scans]
    lengths = np.array([scan.courses.shape[1] for scan in scans])
    assert lengths.min() >= 250
    assert lengths.max() <= 600
    assert lengths.std() > 60
    assert all(scan.nuisance.volumes == scan.courses.shape[1] for scan in scans)
    assert np.median([scan.nuisance.mean_fd for scan in scans]) == pytest.approx(0.15, rel=0.25)


def test_components_and_sessions():
    cohort = SimulatedCohort(replace(SMALL, components=3, sessions=4, networks=2))
    _person, scans = cohort.subject(0)
    assert [scan.session for scan in scans] == ["ses-pre1", "ses-pre2", "ses-post1", "ses-post2"]
    assert [scan.state for scan in scans] == ["pre", "pre", "post", "post"]
    assert scans[0].maps.shape == (6, len(cohort.xyz))
    assert scans[0].courses.shape[0] == 6
    assert sorted(scans[0].network) == ["motor"] * 3 + ["vision"] * 3


def test_noise_free_maps_are_the_template():
    quiet = MapModel(
        drift=0.0,
        shift=0.0,
        node=0.0,
        texture=0.0,
        field=0.0,
        site=0.0,
        motion=0.0,
        noise=0.0,
        background=0.0,
        white=0.0,
        change_sd=0.0,
    )
    cohort = SimulatedCohort(replace(SMALL, maps=quiet))
    _, (before, after) = cohort.subject(1)
    for scan, expected in ((before, cohort.templates), (after, cohort.templates + cohort.effects)):
        found = scan.sign[:, None] * scan.maps / (UNITS * scan.nuisance.gain)
        order = [cohort.names.index(name) for name in scan.network]
        np.testing.assert_allclose(found, expected[order], atol=1e-6)


def test_left_is_left():
    brain = load_brain(8.0)
    xyz = brain.coordinates()
    language = network_map(xyz, "language")
    assert xyz[language.argmax(), 0] < -40
    assert language[xyz[:, 0] < 0].sum() > 3 * language[xyz[:, 0] > 0].sum()
    motor = network_map(xyz, "motor")
    assert xyz[motor.argmax(), 2] > 40


@pytest.mark.parametrize("resolution", [4.0, 8.0])
def test_the_mean_of_shifted_maps_is_the_blurred_map(resolution: float):
    xyz = load_brain(resolution).coordinates()[::7]
    rng = np.random.default_rng(0)
    shifted = [network_map(xyz, "vision", shift=3.0 * rng.standard_normal(3)) for _ in range(800)]
    np.testing.assert_allclose(np.mean(shifted, axis=0), network_map(xyz, "vision", blur=3.0), atol=0.04)


@pytest.mark.parametrize(
    ("option", "value"),
    [("subjects", 1), ("sessions", 3), ("networks", 6), ("components", 0), ("effect", -1.0), ("sites", 0), ("tr", 9.0)],
)
def test_bad_settings_are_refused(option: str, value: float):
    with pytest.raises(UserError, match=f"{option} .*out of range"):
        IcaSettings(**{option: value})


def test_bad_resolution_is_refused():
    with pytest.raises(UserError, match=r"resolution 7\.5"):
        load_brain(7.5)
