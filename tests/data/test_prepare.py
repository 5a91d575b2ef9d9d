import gzip
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from bids_tree import AFFINE, SHAPE, add_scan, make_tree, maps, mask, save, scan, scan_name
from scipy import stats

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.prepare import prepare_courses, prepare_ica
from ssl4neuro.data.readers import READERS, BidsReader
from ssl4neuro.errors import UserError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(tmp_path / "tree")


def prepare(tree: Path, **options: object) -> Cohort:
    settings = {"bids": tree, "maps": tree / "maps.nii.gz", "mask": tree / "mask.nii.gz", "networks": tree / "networks.tsv"}
    return prepare_ica(tree.parent / "out" / "cohort", **{**settings, **options})  # type: ignore[arg-type]


def bold(tree: Path, subject: str = "02") -> Path:
    return tree / f"sub-{subject}" / "func" / scan_name(subject)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the scans that are really read."""
    names: list[str] = []
    original = BidsReader.read

    def read(self: BidsReader, scan: object) -> object:
        names.append(scan.name)  # type: ignore[attr-defined]
        return original(self, scan)  # type: ignore[arg-type]

    monkeypatch.setattr(BidsReader, "read", read)
    return names


def test_cohort_holds_the_dual_regression(tree: Path) -> None:
    cohort = prepare(tree)
    assert len(cohort) == 12
    assert cohort.index["subject"].unique().tolist() == ["sub-01", "sub-02", "sub-03"]
    assert cohort.labels("network")[:4].tolist() == ["motor", "vision", "language", "frontal"]
    assert cohort.labels("age")[[0, 4, 8]].tolist() == [20, 21, 22]
    assert cohort.labels("site")[[0, 4, 8]].tolist() == ["A", "B", "A"]
    values = cohort.fetch(np.arange(12))
    # Oracle: plain least squares in two steps, then scaling.
    data = scan(1)[mask()].T.astype(np.float64)
    group = maps()[mask()].T.astype(np.float64)
    courses = np.linalg.lstsq(np.column_stack([group.T, np.ones(60)]), data.T, rcond=None)[0][:4]
    trend = np.column_stack([np.ones(40), np.arange(40)])
    courses -= (trend @ np.linalg.lstsq(trend, courses.T, rcond=None)[0]).T
    regressed = np.linalg.lstsq(np.column_stack([courses.T, trend]), data, rcond=None)[0][:4]
    sign = np.sign(stats.skew(regressed, axis=1))[:, None]
    assert np.allclose(np.stack(values["course"][4:8]), stats.zscore(courses, axis=1) * sign, atol=1e-4)
    assert np.allclose(values["map"][4:8], np.clip(stats.zscore(regressed, axis=1) * sign, -10, 10), atol=5e-3)


def test_contract(tree: Path) -> None:
    contract = prepare(tree).info["contract"]
    assert contract["map"]["space"] == "MNI152"
    assert contract["map"]["shape"] == list(SHAPE)
    assert contract["map"]["template_sha256"] == contract["course"]["template_sha256"]
    assert contract["course"]["tr"] == 2.0
    assert contract["course"]["band"] is None


def test_sources_are_recorded_relative_to_their_root(tree: Path) -> None:
    info = prepare(tree).info
    assert info["sources"][0]["file"] == f"sub-01/func/{scan_name('01')}"
    assert info["name"] == "tree"
    assert str(tree.parent) not in json.dumps(info)
    assert {entry["role"] for entry in info["shared"]} == {"maps", "mask", "networks"}


def test_second_call_does_nothing(tree: Path, reads: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    first = prepare(tree)
    stamp = os.stat(first.path / "cohort.json").st_mtime_ns
    reads.clear()
    capsys.readouterr()
    assert prepare(tree).info == first.info
    assert "up to date" in capsys.readouterr().err
    assert reads == []
    assert os.stat(first.path / "cohort.json").st_mtime_ns == stamp


def test_only_changed_scans_are_redone(tree: Path, reads: list[str]) -> None:
    before = prepare(tree).fetch(np.arange(12))
    save(bold(tree), scan(77))
    add_scan(tree, "04", 9)
    reads.clear()
    cohort = prepare(tree)
    assert reads == ["sub-02", "sub-04"]
    after = cohort.fetch(np.arange(16))
    assert np.array_equal(after["map"][:4], before["map"][:4])
    assert np.array_equal(after["map"][8:12], before["map"][8:12])
    assert not np.array_equal(after["map"][4:8], before["map"][4:8])
    # The same as a cohort made from nothing.
    whole = prepare_ica(
        tree.parent / "other", bids=tree, maps=tree / "maps.nii.gz", mask=tree / "mask.nii.gz", networks=tree / "networks.tsv"
    )
    assert whole.info["files"] == cohort.info["files"]


def test_same_size_and_new_time_is_seen_as_changed(tree: Path, reads: list[str]) -> None:
    for path in tree.rglob("*"):
        os.utime(path, (1e9, 1e9))  # long ago, so that hashes are remembered
    prepare(tree)
    sidecar = bold(tree).with_name(bold(tree).name.replace(".nii.gz", ".json"))
    sidecar.write_text(json.dumps({"RepetitionTime": 2.5}))
    reads.clear()
    assert prepare(tree).info["contract"]["course"]["trs"] == [2.0, 2.5]
    assert reads == ["sub-02"]


def test_new_labels_need_no_reading(tree: Path, reads: list[str]) -> None:
    prepare(tree)
    reads.clear()
    (tree / "participants.tsv").write_text("participant_id\tgroup\nsub-01\tpatient\n")
    assert prepare(tree).labels("group").tolist() == ["patient"] * 4 + [None] * 8
    assert reads == []


def test_a_killed_run_goes_on(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, names = BidsReader.read, []

    def read(self: BidsReader, scan: object) -> object:
        names.append(scan.name)  # type: ignore[attr-defined]
        if len(names) == 3:
            raise KeyboardInterrupt
        return original(self, scan)  # type: ignore[arg-type]

    monkeypatch.setattr(BidsReader, "read", read)
    with pytest.raises(KeyboardInterrupt):
        prepare(tree)
    assert not (tree.parent / "out" / "cohort").exists()
    shards = sorted((tree.parent / "out" / ".cohort.work").glob("*.npz"))
    assert len(shards) == 2
    shards[0].write_bytes(shards[0].read_bytes()[:100])  # a damaged one is made again
    names[:] = ["x"] * 5
    cohort = prepare(tree)
    assert len(names) == 7
    assert len(cohort) == 12
    assert list((tree.parent / "out" / ".cohort.work").glob("*.npz")) == []


def test_other_settings_need_replace(tree: Path) -> None:
    prepare(tree)
    with pytest.raises(UserError, match=r"other settings \(drop_volumes 0 → 2\)"):
        prepare(tree, drop_volumes=2)
    assert prepare(tree, drop_volumes=2, replace=True).index["length"].unique().tolist() == [38]


def test_nothing_but_a_cohort_is_replaced(tree: Path) -> None:
    out = tree.parent / "out" / "cohort"
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("do not touch")
    for replace in (False, True):
        with pytest.raises(UserError, match="no intact cohort"):
            prepare(tree, replace=replace)
    assert (out / "thesis.txt").read_text() == "do not touch"


def test_other_scans_need_replace(tree: Path) -> None:
    prepare(tree)
    other = make_tree(tree.parent / "elsewhere" / "tree")
    for number in (1, 2, 3):
        shutil.rmtree(other / f"sub-0{number}")
    add_scan(other, "11", 50)
    with pytest.raises(UserError, match="other scans"):
        prepare_ica(
            tree.parent / "out" / "cohort",
            bids=other,
            maps=tree / "maps.nii.gz",
            mask=tree / "mask.nii.gz",
            networks=tree / "networks.tsv",
        )


def test_workers_give_the_same_bytes(tree: Path) -> None:
    one = prepare(tree).info
    two = prepare_ica(
        tree.parent / "two",
        bids=tree,
        maps=tree / "maps.nii.gz",
        mask=tree / "mask.nii.gz",
        networks=tree / "networks.tsv",
        workers=2,
    ).info
    assert one["files"] == two["files"]


def test_a_bad_scan_in_a_worker_is_named(tree: Path) -> None:
    save(bold(tree, "03"), scan(0)[..., 0])
    with pytest.raises(UserError, match=r"sub-03_.*is 3-D"):
        prepare(tree, workers=2)


def break_nan(path: Path) -> None:
    values = scan(0)
    values[2, 2, 2, 7] = np.nan
    save(path, values)


def break_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def break_far(path: Path) -> None:
    elsewhere = AFFINE.copy()
    elsewhere[:3, 3] += 400
    save(path, scan(0), elsewhere)


def break_3d(path: Path) -> None:
    save(path, scan(0)[..., 0])


def break_one_volume(path: Path) -> None:
    save(path, scan(0)[..., :1])


def break_text(path: Path) -> None:
    path.write_bytes(gzip.compress(b"not an image"))


def break_constant(path: Path) -> None:
    save(path, np.ones((*SHAPE, 40), dtype=np.float32))


def break_copy(path: Path) -> None:
    shutil.copy(bold(path.parents[2], "01"), path)


BREAKS = [break_nan, break_cut, break_far, break_3d, break_one_volume, break_text, break_constant, break_copy]


@pytest.mark.parametrize("damage", BREAKS, ids=lambda f: f.__name__)
def test_bad_scans_stop_or_are_skipped(tree: Path, damage: object) -> None:
    damage(bold(tree))  # type: ignore[operator]
    with pytest.raises(UserError) as caught:
        prepare(tree)
    assert "sub-02" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tree.parent / "out" / "cohort").exists()
    cohort = prepare(tree, skip_bad=True)
    assert cohort.index["subject"].unique().tolist() == ["sub-01", "sub-03"]
    assert len(cohort.info["skipped"]) == 1
    assert "sub-02" in cohort.info["skipped"][0]["file"]


def test_all_bad(tree: Path) -> None:
    for subject in ("01", "02", "03"):
        save(bold(tree, subject), scan(0)[..., :3] + int(subject))
    with pytest.raises(UserError, match="none of its 3 scans can be used; the first"):
        prepare(tree, skip_bad=True)


def test_one_source(tree: Path) -> None:
    with pytest.raises(UserError, match="no source is given"):
        prepare_ica(tree.parent / "c")
    with pytest.raises(UserError, match="--bids and --gift are given"):
        prepare(tree, gift=tree)
    with pytest.raises(UserError, match="either --maps FILE or --canica K"):
        prepare(tree, maps=None)
    with pytest.raises(UserError, match="either --maps FILE or --canica K"):
        prepare(tree, canica=3)
    with pytest.raises(UserError, match="--task belongs to --bids"):
        prepare_ica(tree.parent / "c", gift=tree, task="rest")
    with pytest.raises(UserError, match="--templates belongs to --melodic"):
        prepare(tree, templates=tree / "maps.nii.gz")


def test_missing_files(tree: Path) -> None:
    for option in ("maps", "mask", "networks", "participants", "sessions"):
        with pytest.raises(UserError, match="absent: no such file"):
            prepare(tree, **{option: tree / "absent"})


def test_resolution(tree: Path) -> None:
    cohort = prepare(tree, resolution=4.0)
    assert cohort.info["contract"]["map"]["shape"] == [2 * n for n in SHAPE]
    assert cohort.info["settings"]["resolution"] == 4.0
    assert cohort.mask is not None
    assert cohort.fetch(np.array([0]))["map"].shape[1] == cohort.mask.sum() > 60


def test_session_labels(tmp_path: Path) -> None:
    tree = make_tree(tmp_path / "tree", 2)
    for subject in ("01", "02"):
        shutil.rmtree(tree / f"sub-{subject}")
        for n, session in enumerate(("pre", "post")):
            add_scan(tree, subject, 10 * int(subject) + n, session=session)
        (tree / f"sub-{subject}" / f"sub-{subject}_sessions.tsv").write_text("session_id\tacq_day\nses-pre\t1\nses-post\t90\n")
    (tmp_path / "labels.csv").write_text("subject,session,state\n01,pre,before\n01,post,after\n02,pre,before\n")
    cohort = prepare(tree, sessions=tmp_path / "labels.csv")
    assert cohort.labels("state")[::4].tolist() == ["after", "before", None, "before"]
    assert cohort.labels("acq_day")[::4].tolist() == [90, 1, 90, 1]


def test_participants_in_other_forms(tree: Path) -> None:
    (tree / "participants.tsv").unlink()
    (tree / "participants.csv").write_text("id,group\n01,control\n03,patient\n99,control\n")
    cohort = prepare(tree)
    assert cohort.participants["participant_id"].tolist() == ["sub-01", "sub-02", "sub-03"]
    assert cohort.labels("group")[::4].tolist() == ["control", None, "patient"]


def test_one_subject_is_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(make_tree(tmp_path / "tree", 1)).info["subjects"] == 1
    assert "one subject only" in capsys.readouterr().err


def test_canica(tmp_path: Path, capsys: pytest.CaptureFixture[str], reads: list[str]) -> None:
    tree = make_tree(tmp_path / "tree", 4)
    (tree / "train.tsv").write_text("participant_id\nsub-01\nsub-02\nsub-03\n")
    options = {"maps": None, "networks": None, "canica": 3, "canica_subjects": tree / "train.tsv"}
    cohort = prepare(tree, **options)
    assert cohort.info["settings"]["canica_subjects"] == ["sub-01", "sub-02", "sub-03"]
    assert cohort.info["warnings"] == []
    assert len(cohort) == 12
    assert (cohort.path / "group_maps.nii.gz").is_file()
    reads.clear()
    capsys.readouterr()
    assert prepare(tree, **options).info == cohort.info
    assert "CanICA" not in capsys.readouterr().err
    assert reads == []
    again = prepare_ica(tmp_path / "again", bids=tree, mask=tree / "mask.nii.gz", canica=3, canica_subjects=tree / "train.tsv")
    assert again.info["contract"] == cohort.info["contract"]  # deterministic: the same template
    everyone = prepare_ica(tmp_path / "all", bids=tree, mask=tree / "mask.nii.gz", canica=3)
    assert "leak" in everyone.info["warnings"][0]
    assert everyone.info["contract"]["map"]["template_sha256"] != cohort.info["contract"]["map"]["template_sha256"]


def test_canica_that_cannot_be(tree: Path) -> None:
    (tree / "train.tsv").write_text("participant_id\nsub-77\n")
    options = {"maps": None, "networks": None}
    with pytest.raises(UserError, match="no scan of 77"):
        prepare(tree, **options, canica=3, canica_subjects=tree / "train.tsv")
    for components in (1, 60):
        with pytest.raises(UserError, match=f"--canica {components}: between 2 and 39"):
            prepare(tree, **options, canica=components)


def test_courses(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    series = {f"p{n}": rng.standard_normal((50 + n, 6)) + np.arange(50 + n)[:, None] for n in range(3)}
    np.savez(tmp_path / "a.npz", **series)
    (tmp_path / "participants.csv").write_text("id,group\np0,x\np1,y\np2,x\n")
    cohort = prepare_courses(tmp_path / "out", timeseries=tmp_path / "a.npz", tr=2.0, band=(0.01, 0.1))
    assert cohort.modalities == ("course",)
    assert cohort.info["contract"]["course"]["band"] == [0.01, 0.1]
    assert cohort.labels("group")[::6].tolist() == ["x", "y", "x"]
    assert cohort.index["length"].tolist()[::6] == [50, 51, 52]
    assert len(set.union(*cohort.content_hashes().values())) == 3
    with pytest.raises(UserError, match="repetition time is unknown"):
        prepare_courses(tmp_path / "other", timeseries=tmp_path / "a.npz", band=(0.01, 0.1))


def test_the_same_courses_under_two_names(tmp_path: Path) -> None:
    series = np.random.default_rng(0).standard_normal((50, 6))
    np.savez(tmp_path / "a.npz", a=series, b=series, c=series + 1)
    with pytest.raises(UserError, match="b holds the same values as a"):
        prepare_courses(tmp_path / "out", timeseries=tmp_path / "a.npz")
    cohort = prepare_courses(tmp_path / "out", timeseries=tmp_path / "a.npz", skip_bad=True)
    assert sorted(set(cohort.index["subject"])) == ["a", "c"]
    assert len(cohort.info["skipped"]) == 1


def test_names_cannot_leave_the_output_folder(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    series = np.random.default_rng(0).standard_normal((50, 6))
    np.savez(inner / "a.npz", **{"fine": series, "..evil": series + 1})
    with pytest.raises(UserError, match="does not name a scan"):
        prepare_courses(inner / "out", timeseries=inner / "a.npz")
    np.savez(inner / "b.npz", **{"fine": series, "C:evil": series**2})
    prepare_courses(inner / "out", timeseries=inner / "b.npz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["inner"]
    assert sorted(p.name for p in inner.iterdir() if not p.name.startswith(".")) == ["a.npz", "b.npz", "out"]


def test_memory_does_not_grow_with_the_number_of_subjects(tmp_path: Path) -> None:
    def peak(subjects: int) -> int:
        tree = make_tree(tmp_path / f"tree{subjects}", subjects)
        for n in range(subjects):
            add_scan(tree, f"{n + 1:02d}", n, volumes=1500)
        options = {"bids": tree, "maps": tree / "maps.nii.gz", "mask": tree / "mask.nii.gz"}
        tracemalloc.start()
        prepare_ica(tmp_path / f"out{subjects}", **options)  # type: ignore[arg-type]
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(1)  # imports
    few, many = peak(2), peak(10)
    assert many < few + 3 * 60 * 1500 * 4  # eight scans more, but not even the in-mask data of three


def test_table_of_readers() -> None:
    assert sorted(READERS) == ["bids", "courses", "gift", "melodic"]
    for reader in READERS.values():
        assert all(hasattr(reader, name) for name in ("scans", "grid", "read", "shared_files", "description"))


def test_rest20(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "rest20"
    cohort = prepare_ica(
        tmp_path / "rest20", bids=root, maps=root / "neuromark53_maps.nii.gz", mask=root / "mask.nii.gz",
        networks=root / "neuromark53_networks.tsv",
    )  # fmt: skip
    assert (cohort.info["subjects"], cohort.info["scans"], len(cohort)) == (20, 20, 1060)
    assert cohort.info["contract"]["course"]["tr"] == 2.0
    # Split-half identification of subjects from the correlations of their components: 97.5 % (shared/data/README.md).
    courses = np.stack(cohort.fetch(np.arange(1060), ("course",))["course"]).reshape(20, 53, 148)
    upper = np.triu_indices(53, 1)
    first, second = (np.stack([np.corrcoef(c)[upper] for c in half]) for half in (courses[..., :74], courses[..., 74:]))
    similarity = np.corrcoef(first, second)[:20, 20:]
    hits = [similarity.argmax(axis=1) == np.arange(20), similarity.argmax(axis=0) == np.arange(20)]
    assert np.mean(hits) >= 0.9


def make_melodic(root: Path) -> Path:
    """Two subjects × two sessions of MELODIC output, components in another order and sign in every scan."""
    for number, (subject, session) in enumerate([("01", "pre"), ("01", "post"), ("02", "pre"), ("02", "post")]):
        rng = np.random.default_rng(number)
        folder = root / f"sub-{subject}" / f"ses-{session}" / "rest.ica"
        order, sign = rng.permutation(4), rng.choice([-1.0, 1.0], 4)
        values = (maps()[..., order] + 0.2 * rng.standard_normal((*SHAPE, 4))) * sign * mask()[..., None]
        save(folder / "melodic_IC.nii.gz", values.astype(np.float32))
        np.savetxt(folder / "melodic_mix", rng.standard_normal((30 + number, 4)))
        (folder / "order.txt").write_text(" ".join(map(str, order)))
    return root


def test_melodic_with_review(tmp_path: Path) -> None:
    tree, melodic = make_tree(tmp_path / "tree"), make_melodic(tmp_path / "ica")
    options = {"melodic": [melodic], "templates": tree / "maps.nii.gz", "mask": tree / "mask.nii.gz"}
    cohort = prepare_ica(tmp_path / "out", **options, networks=tree / "networks.tsv")  # type: ignore[arg-type]
    names = np.array(["motor", "vision", "language", "frontal"])
    expected = []
    for session in ("01/ses-post", "01/ses-pre", "02/ses-post", "02/ses-pre"):
        order = (melodic / f"sub-{session}" / "rest.ica" / "order.txt").read_text().split()
        expected += names[[int(i) for i in order]].tolist()
    assert cohort.labels("network").tolist() == expected
    values = cohort.fetch(np.arange(16), ("map",))["map"].astype(np.float64)
    assert (stats.skew(values, axis=1) > 0).all()
    # The review table survives an update that takes unchanged scans over, and comes back corrected.
    np.savetxt(melodic / "sub-02" / "ses-pre" / "rest.ica" / "melodic_mix", np.random.default_rng(9).standard_normal((44, 4)))
    before = (cohort.path / "assignment.tsv").read_text()
    cohort = prepare_ica(tmp_path / "out", **options, networks=tree / "networks.tsv")  # type: ignore[arg-type]
    assert cohort.index["length"].tolist()[-1] == 44
    assert (cohort.path / "assignment.tsv").read_text() == before
    review = tmp_path / "review.tsv"
    review.write_text(before.replace("motor", "sensorimotor", 1))
    corrected = prepare_ica(tmp_path / "corrected", **options, networks=tree / "networks.tsv", assignment=review)  # type: ignore[arg-type]
    assert (corrected.labels("network") == "sensorimotor").sum() == 1
