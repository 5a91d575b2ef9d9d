"""Promise 1: a cohort that is not what the checkpoint was trained on is adapted exactly, on request, or refused."""

import copy
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4neuro import contract, geometry
from ssl4neuro.errors import UserError

AFFINE = [[3.0, 0, 0, -90], [0, 3, 0, -126], [0, 0, 3, -72], [0, 0, 0, 1]]


def make(**changes: dict) -> dict:
    """A contract with both modalities; `make(map={"space": None})` changes one property."""
    full = {
        "map": {
            "kind": "volume", "units": "z", "space": "MNI152NLin2009cAsym", "shape": [61, 73, 61], "affine": AFFINE,
            "mask_sha256": "a" * 64, "voxels": 70000, "normalisation": "in-mask z-score", "sign": "positive skewness",
            "template_sha256": "b" * 64,
        },
        "course": {
            "kind": "course", "units": "z", "tr": 2.0, "trs": [2.0], "band": [0.01, 0.1],
            "normalisation": "linear detrend, z-score", "template_sha256": "b" * 64,
        },
    }  # fmt: skip
    for modality, change in changes.items():
        full[modality] = {**full[modality], **change}
    return full


def one(expected: dict, found: dict, **options: object) -> contract.Difference:
    differences = contract.compare(expected, found, **options)
    assert len(differences) == 1, contract.explain(differences)
    return differences[0]


@pytest.mark.parametrize("changes", [{}, {"course": {"tr": None, "trs": [2.0, 3.0]}}, {"course": {"tr": None, "trs": []}}])
def test_no_difference_with_itself(changes):
    c = make(**changes)
    again = json.loads(json.dumps(c))
    again["map"]["shape"] = tuple(again["map"]["shape"])  # JSON or Python makes no difference
    assert contract.compare(c, again) == []
    assert contract.explain([]) == "no difference"


# property -> (other value, remedy expected -> changed, remedy changed -> expected)
CHANGES = {
    ("map", "kind"): ("course", "refused", "refused"),
    ("map", "units"): ("percent", "refused", "refused"),
    ("map", "space"): ("T1w", "refused", "refused"),
    ("map", "shape"): ([60, 73, 61], "exact", "exact"),
    ("map", "affine"): ([[4.0, 0, 0, -90], *AFFINE[1:]], "asked", "asked"),
    ("map", "mask_sha256"): ("c" * 64, "asked", "asked"),
    ("map", "voxels"): (5, "asked", "asked"),
    ("map", "normalisation"): (None, "refused", "refused"),
    ("map", "sign"): ("none", "refused", "refused"),
    ("map", "template_sha256"): (None, "asked", "asked"),
    ("map", "something new"): (1, "refused", "refused"),
    ("course", "units"): ("percent", "refused", "refused"),
    ("course", "tr"): (0.72, "asked", "asked"),
    ("course", "band"): (None, "asked", "refused"),
    ("course", "normalisation"): ("none", "refused", "refused"),
    ("course", "template_sha256"): ("d" * 64, "asked", "asked"),
}


@pytest.mark.parametrize("key", CHANGES, ids=".".join)
def test_each_property_both_ways(key):
    modality, field = key
    value, forwards, backwards = CHANGES[key]
    changed = make(**{modality: {field: value}})
    if field == "kind":
        changed[modality].update(tr=2.0)
    there, back = contract.compare(make(), changed), contract.compare(changed, make())
    assert [(d.modality, d.field) for d in there] == [key]
    assert [(d.modality, d.field) for d in back] == [key]
    assert (there[0].remedy, back[0].remedy) == (forwards, backwards)
    for d in (*there, *back):
        assert (d.adaptation in contract.ADAPTATIONS) == (d.remedy == "asked")
        assert d.advice
        assert "\n" not in str(d)


def test_every_rule_is_exercised():
    for kind, modality in (("volume", "map"), ("course", "course")):
        assert set(contract.RULES[kind]) <= {field for m, field in CHANGES if m == modality}


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_any_single_change_is_seen_from_both_sides(data):
    base = make()
    modality = data.draw(st.sampled_from(["map", "course"]))
    field = data.draw(st.sampled_from([f for f in base[modality] if f not in ("trs", "kind")]))
    changed = copy.deepcopy(base)
    if field == "affine":
        row, column = data.draw(st.integers(0, 2)), data.draw(st.integers(0, 3))
        changed["map"]["affine"][row][column] += data.draw(st.sampled_from([-1.0, 0.4, 1.0, 30.0]))
    elif field == "shape":
        changed["map"]["shape"][data.draw(st.integers(0, 2))] += data.draw(st.integers(1, 9))
    elif field == "tr":
        changed["course"]["tr"] = data.draw(st.floats(0.3, 1.99) | st.floats(2.01, 5) | st.none())
        changed["course"]["trs"] = [] if changed["course"]["tr"] is None else [changed["course"]["tr"]]
    elif field == "band":
        changed["course"]["band"] = [data.draw(st.floats(0.02, 0.05)), data.draw(st.floats(0.06, 0.2))]
    elif field == "voxels":
        changed["map"]["voxels"] += data.draw(st.integers(1, 100))
    else:
        changed[modality][field] = data.draw(st.text(max_size=9))
    for a, b in ((base, changed), (changed, base)):
        names = {(d.modality, d.field) for d in contract.compare(a, b)}
        aliases = {"tr": {"tr", "trs"}, "shape": {"shape", "affine"}}.get(field, {field})
        assert names & {(modality, alias) for alias in aliases}
        assert {m for m, _ in names} == {modality}


def test_the_advice_names_the_numbers_of_training():
    four = make(map={"affine": (np.diag([4.0, 4, 4, 1]) + np.eye(4, k=3) * -90).tolist(), "shape": [46, 55, 46]})
    with pytest.raises(UserError) as caught:
        contract.enforce(make(), four, adapt=["mask"], where="cohorts/new")
    text = str(caught.value)
    assert text.startswith("cohorts/new: ")
    assert "\n" not in text
    for part in ("map.affine", "3 mm, 61×73×61", "4 mm, 46×55×46", "--resolution 3", "--adapt grid"):
        assert part in text
    assert [d.adaptation for d in contract.enforce(make(), four, adapt=["grid"])] == ["grid"]


def test_enforce_lists_all_obstacles_and_no_other():
    found = make(map={"units": "x", "shape": [60, 73, 61]}, course={"tr": 3.0})
    with pytest.raises(UserError) as caught:
        contract.enforce(make(), found, adapt=["tr"])
    assert "map.units" in str(caught.value)
    assert "course.tr" not in str(caught.value)
    assert "map.shape" not in str(caught.value)


def test_unknown_adaptation():
    with pytest.raises(UserError, match="did you mean 'grid'"):
        contract.enforce(make(), make(), adapt=["gird"])


def test_modalities_that_are_absent_or_new():
    both, course = make(), {"course": make()["course"]}
    assert contract.compare(course, both) == []  # the cohort has more
    absent = one(both, course)
    assert (absent.modality, absent.field, absent.remedy) == ("map", "modality", "exact")
    assert contract.enforce(both, course) == [absent]
    assert one(both, course, required=["map"]).remedy == "refused"
    with pytest.raises(UserError, match=r"map\.modality"):
        contract.enforce({"map": both["map"]}, course)


def test_same_mask_on_a_larger_grid_is_recognised():
    rng = np.random.default_rng(0)
    small = np.zeros((6, 7, 8), dtype=bool)
    small[1:5, 1:6, 2:7] = rng.random((4, 5, 5)) < 0.7
    large = np.pad(small, 2)
    here = np.array(AFFINE, float)
    there = here.copy()
    there[:3, 3] -= 6  # two voxels of 3 mm, all axes
    contracts = [
        make(
            map={
                "affine": a.tolist(),
                "shape": list(m.shape),
                "mask_sha256": geometry.mask_sha256(m, a),
                "voxels": int(m.sum()),
            }
        )
        for m, a in ((small, here), (large, there))
    ]
    assert one(*contracts, masks={"map": large}).remedy == "exact"
    assert one(*reversed(contracts), masks={"map": small}).remedy == "exact"
    assert [d.adaptation for d in contract.compare(*contracts)] == ["", "mask"]  # without the mask nobody knows
    large[0, 0, 0] = True  # outside the grid of training: cropped away, but one voxel more inside is another mask
    assert one(*contracts, masks={"map": large}).remedy == "exact"
    large[2, 2, 2] ^= True
    assert [d.adaptation for d in contract.compare(*contracts, masks={"map": large})] == ["", "mask"]


def test_no_overlap_is_refused():
    far = make(map={"affine": [[3.0, 0, 0, 5000], *AFFINE[1:]]})
    differences = contract.compare(make(), far)
    assert differences[0].remedy == "refused"
    assert "do not overlap" in differences[0].advice


@pytest.mark.parametrize(
    ("trained", "cohort", "result"),
    [
        ([2.0], [2.0005], []),
        ([2.0, 3.0], [2.0], [("trs", "exact")]),
        ([2.0], [2.0, 3.0], [("tr", "asked")]),
        ([2.0], [None], [("trs", "asked")]),
        ([2.0], [2.0, None], [("trs", "asked")]),
        ([2.0], [3.0, None], [("trs", "asked"), ("tr", "asked")]),
        ([2.0, None], [2.0], [("trs", "exact")]),
        ([None], [2.0], [("trs", "asked")]),
        ([None], [None], []),
        ([float("nan")], [0.0], []),
    ],
)
def test_repetition_times(trained, cohort, result):
    a, b = ({"course": {**make()["course"], "tr": t[0] if len(t) == 1 else None, "trs": t}} for t in (trained, cohort))
    assert [(d.field, d.remedy) for d in contract.compare(a, b)] == result


def test_slower_cohort_is_told_what_it_cannot_hold():
    d = one(make(), make(course={"tr": 4.0, "trs": [4.0]}))
    assert "nothing above 0.125 Hz" in d.advice
    assert "Hz" not in one(make(), make(course={"tr": 1.0, "trs": [1.0]})).advice


def test_one_tr_that_is_not_everybodys_means_that_some_are_unknown():
    assert contract.trs_of({"tr": None, "trs": [2.0]}) == [2.0, None]
    assert contract.trs_of({"tr": 2.0, "trs": [2.0]}) == [2.0]
    assert contract.trs_of({"tr": None, "trs": [2.0, 0.7]}) == [0.7, 2.0]


def test_target_tr_is_the_nearest_ratio():
    mixed = {"tr": None, "trs": [0.7, 2.0, None]}
    assert [contract.target_tr(t, mixed) for t in (0.8, 1.1, 1.3, 5.0)] == [0.7, 0.7, 2.0, 2.0]
    assert contract.target_tr(1.5, {"tr": None, "trs": []}) == 1.5


@pytest.mark.parametrize(
    ("trained", "cohort", "remedy"),
    [
        ([0.01, 0.1], [0.008, 0.15], "asked"),
        ([0.01, 0.1], [0.02, 0.15], "refused"),
        ([0.01, None], None, "asked"),
        (None, [0.01, None], "refused"),
        ([0.01, 0.1], [0.01, None], "asked"),
        ([0.01, 0.1], None, "asked"),
    ],
)
def test_bands(trained, cohort, remedy):
    d = one(make(course={"band": trained}), make(course={"band": cohort}))
    assert (d.field, d.remedy) == ("band", remedy)


def test_unbounded_bands_are_equal():
    assert contract.compare(make(course={"band": None}), make(course={"band": [None, None]})) == []


def test_unnamed_space_is_accepted_on_request_only():
    d = one(make(), make(map={"space": None}))
    assert (d.remedy, d.adaptation) == ("asked", "space")
    assert contract.enforce(make(), make(map={"space": None}), adapt=["space"]) == [d]


def test_unknown_kinds_are_compared_property_by_property():
    sound = {"phono": {"kind": "sound", "rate": 4000, "channels": "mono"}}
    assert contract.compare(sound, copy.deepcopy(sound)) == []
    assert one(sound, {"phono": {**sound["phono"], "channels": "stereo"}}).remedy == "refused"


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        {},
        [],
        {"map": 3},
        {"map": {}},
        {"map": {"kind": "volume"}},
        {"map": {**make()["map"], "affine": [[0] * 4] * 4}},
        {"course": {**make()["course"], "tr": "2 s"}},
        {"course": {**make()["course"], "band": [0.1]}},
        {"course": {**make()["course"], "tr": None, "trs": {"a": 2}}},
        {3: {"kind": "clip"}},
    ],
)
def test_damaged_contracts(damaged):
    with pytest.raises(UserError, match=r"^RUN/contract\.json: ") as caught:
        contract.check(damaged, "RUN/contract.json")
    assert "\n" not in str(caught.value)


def test_table_is_aligned():
    lines = contract.table(contract.compare(make(), make(map={"units": "x"}, course={"tr": 3.0}))).splitlines()
    assert len(lines) == 3
    column = lines[0].index("trained on")
    assert [line[column - 2 : column] for line in lines] == ["  "] * 3
    assert lines[1][column:].startswith("z ")


# --- clips

CINE = {
    "kind": "clip", "channels": [1], "cyclic": True, "interval": [0.03, 0.04], "spacing": [1.4, 1.6], "views": ["sax"],
}  # fmt: skip
LOADING = {"frames": 16, "sampling": "cycle", "size": 64, "field": None}


def cine(**changes: object) -> dict:
    return {"cine": {**CINE, **changes}}


@pytest.mark.parametrize(
    ("loading", "changes", "adaptation"),
    [
        (LOADING, {}, None),
        (LOADING, {"channels": [1, 3]}, "colour"),
        (LOADING, {"cyclic": False}, "cyclic"),
        (LOADING, {"cyclic": None}, "cyclic"),
        (LOADING, {"interval": [1.0, 2.0]}, None),  # a cycle is sampled evenly whatever its frame interval
        (LOADING, {"interval": None}, None),
        ({**LOADING, "sampling": "contiguous"}, {"interval": [1.0, 2.0]}, "interval"),
        ({**LOADING, "sampling": "contiguous"}, {"interval": [0.028, 0.045]}, None),
        ({**LOADING, "sampling": "stride"}, {"interval": None}, "interval"),
        (LOADING, {"spacing": None}, None),  # the crop is a share of the picture
        ({**LOADING, "field": 120.0}, {"spacing": None}, "spacing"),
        ({**LOADING, "field": 120.0}, {"spacing": [3.0, 3.0]}, "spacing"),
        ({**LOADING, "field": 120.0}, {"spacing": [1.3, 1.7]}, None),
    ],
)
def test_clips_are_compared_in_what_matters_to_how_they_are_cut(loading: dict, changes: dict, adaptation: str | None) -> None:
    expected, found = cine(loading=loading), cine(**changes)
    differences = contract.compare(expected, found)
    assert [d.adaptation for d in differences] == ([adaptation] if adaptation else [])
    assert contract.enforce(expected, found, adapt=[adaptation] if adaptation else []) == differences
    if adaptation:
        with pytest.raises(UserError, match=rf"cine\..*--adapt {adaptation}"):
            contract.enforce(expected, found)


def test_new_views_are_noted_and_colour_stays_colour() -> None:
    noted = one(cine(loading=LOADING), cine(views=["", "sax"]))
    assert (noted.remedy, noted.found) == ("exact", "sax, unnamed")
    assert contract.compare(cine(channels=[3], loading=LOADING), cine(channels=[1, 3])) == []
