"""Promise 2: a subject that was seen is found by name or by content, whoever hashed it and with whatever salt."""

import hashlib
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl4neuro.errors import UserError
from ssl4neuro.manifest import Entry, Manifest, file_sha256


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


COHORT = {f"sub-{i:02d}": {sha(f"bold {i}")} for i in range(1, 6)}


def manifest(subjects=("sub-01", "sub-02"), dataset="rest20", **options) -> Manifest:
    files = {file for subject in subjects for file in COHORT[subject]}
    return Manifest.of(dataset, list(subjects), files, **options)


def test_hashes_are_those_promised():
    entry = manifest(["sub-01"], salt="00ff").entries[0]
    assert entry.subjects == {sha("00ff\0rest20\0" + "01")}
    assert entry.contents == {sha("00ff\0" + sha("bold 1"))}


def test_same_dataset_same_name():
    nothing = {subject: set() for subject in COHORT}
    assert manifest().overlap("rest20", nothing) == ["sub-01", "sub-02"]
    assert manifest().overlap("another dataset", nothing) == []


def test_same_file_under_another_name():
    renamed = {"patient9": {sha("bold 2"), sha("new")}, "patient8": {sha("bold 8")}}
    assert manifest().overlap("clinic", renamed) == ["patient9"]
    assert manifest().overlap("clinic", {"patient9": {sha("bold 2").upper()}}) == ["patient9"]


@pytest.mark.parametrize("name", ["01", "SUB-01", " sub-01 "])
def test_spelling_of_subjects_is_no_way_out(name):
    assert manifest().overlap("Rest20", {name: set()}) == [name]


def test_sidecars_that_everybody_shares_do_not_count():
    common = sha('{"RepetitionTime": 2.0}')
    trained = Manifest.of("a", ["sub-01"], [common, sha("bold 1")])
    cohort = {f"p{i}": {common, sha(f"other {i}")} for i in range(4)}
    assert trained.overlap("b", cohort) == []
    cohort["p2"].add(sha("bold 1"))
    assert trained.overlap("b", cohort) == ["p2"]
    assert trained.overlap("b", {"p0": {common}, "p1": {common}}) == ["p0", "p1"]  # a pair may be one person scanned twice


@given(
    dataset=st.text(max_size=6),
    subjects=st.sets(st.text(max_size=6), max_size=5),
    others=st.sets(st.text(max_size=6), max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_overlap_is_the_intersection(dataset, subjects, others):
    def plain(name: str) -> str:
        return name.strip().casefold().removeprefix("sub-")

    seen = {plain(name) for name in subjects}
    trained = Manifest.of(dataset, subjects, [])
    assert trained.overlap(dataset, dict.fromkeys(others, ())) == sorted(n for n in others if plain(n) in seen)


def test_no_two_readings_of_one_hash():
    trained = Manifest.of("ab", ["c"], [], salt="00")
    assert trained.overlap("a", {"bc": ()}) == []
    assert Manifest.of("x", [], [sha("f")], salt="0").overlap("y", {"s": {sha("f")}}) == ["s"]


def test_nothing_readable_remains_and_salts_differ():
    first, second = manifest(), manifest()
    text = json.dumps(first.to_json())
    assert not any(word in text for word in ("sub-01", sha("bold 1"), sha("rest20\0" + "01")))
    assert not first.entries[0].subjects & second.entries[0].subjects
    assert not first.entries[0].contents & second.entries[0].contents
    assert manifest(salt="aa") == manifest(salt="aa")


def test_merge_keeps_every_salt():
    both = manifest(["sub-01"]).merge(manifest(["sub-02"], dataset="other"), Manifest())
    assert len(both.entries) == 2
    assert both.overlap("rest20", {s: set() for s in COHORT}) == ["sub-01"]
    assert both.overlap("new", COHORT) == ["sub-01", "sub-02"]
    assert both.merge(both) == both


def test_round_trip_is_stable():
    both = manifest(provenance={"versions": {"torch": "2"}}).merge(manifest(["sub-03"]))
    record = json.loads(json.dumps(both.to_json()))
    assert Manifest.from_json(record, "x") == both
    assert json.dumps(Manifest.from_json(record, "x").to_json()) == json.dumps(record)
    assert record["entries"][0]["provenance"] == {"versions": {"torch": "2"}, "dataset": "rest20", "subjects": 2}


GOOD = manifest(salt="ab").to_json()


@pytest.mark.parametrize(
    "record",
    [None, [], {}, {**GOOD, "version": 2}, {**GOOD, "format": "x"}, {**GOOD, "entries": None}, {**GOOD, "entries": [1]}]
    + [{**GOOD, "entries": [{**GOOD["entries"][0], key: value}]} for key, value in [
        ("salt", None), ("salt", "zz"), ("subjects", None), ("subjects", ["sub-01"]), ("contents", [3]), ("contents", "a" * 64),
        ("provenance", 3)]],
)  # fmt: skip
def test_damage_does_not_pass_for_an_empty_firewall(record):
    with pytest.raises(UserError, match=r"^RUN/manifest\.json: ") as caught:
        Manifest.from_json(record, "RUN/manifest.json")
    assert "\n" not in str(caught.value)


def test_frozen():
    with pytest.raises(AttributeError):
        manifest().entries = ()
    with pytest.raises(AttributeError):
        Entry("", frozenset(), frozenset()).salt = "x"


def test_file_hash_streams(tmp_path):
    file = tmp_path / "scan.nii.gz"
    file.write_bytes(os.urandom(3_000_001))
    assert file_sha256(file) == hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(UserError, match=r"absent\.nii: cannot be read"):
        file_sha256(tmp_path / "absent.nii")
    with pytest.raises(UserError, match="cannot be read"):
        file_sha256(tmp_path)
