import json
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from bids_tree import AFFINE, mask

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.cohort_writer import CohortParts, PreparedScan, write_cohort
from ssl4neuro.data.scan import Grid, Scan, ScanRows
from ssl4neuro.errors import UserError

VOXELS = int(mask().sum())
SCANS = [("sub-01", "ses-post", ""), ("sub-01", "ses-pre", ""), ("sub-02", "ses-pre", "run-1"), ("sub-02", "ses-pre", "run-2")]


def prepared(number: int, tr: float = 2.0) -> PreparedScan:
    rng = np.random.default_rng(number)
    components = 2 + number
    rows = ScanRows(
        courses=rng.standard_normal((components, 20 + 3 * number)).astype(np.float32),
        tr=tr,
        component=np.arange(1, components + 1),
        network=["motor", "", "vision", "motor", "motor"][:components],
        maps=rng.standard_normal((components, VOXELS)).astype(np.float16),
        nuisance={"n_volumes": 20.0 + 3 * number, "tsnr": 50.0 + number, "mean_fd": float("nan")},
    )
    subject, session, run = SCANS[number]
    scan = Scan(subject, (Path("a.nii.gz"),), session, run, "A" if subject == "sub-01" else "B")
    files = [{"file": f"{number}.nii.gz", "sha256": f"{number}" * 64, "bytes": 1}]
    return PreparedScan(scan, rows, f"key{number}", f"{number}" * 64, files, [])


def parts() -> CohortParts:
    participants = pd.DataFrame({"participant_id": ["sub-01"], "age": [30], "group": ["patient"]})
    sessions = pd.DataFrame(
        [
            {"participant_id": s, "session_id": t, "run_id": r, "state": t.removeprefix("ses-"), "mean_fd": "0.5"}
            for s, t, r in SCANS[:3]
        ]
    )
    return CohortParts(
        name="toy", kind="ica", grid=Grid(AFFINE, mask()), participants=participants, sessions=sessions,
        contract={"map": {"space": "MNI152", "source": "not part of a contract"}, "course": {"band": [0.01, 0.1]}},
    )  # fmt: skip


@pytest.fixture
def cohort(tmp_path: Path) -> Cohort:
    return write_cohort(tmp_path / "toy", (prepared(n) for n in range(4)), parts())


def test_fetch_gives_what_was_written_in_the_order_asked(cohort: Cohort) -> None:
    maps = np.concatenate([prepared(n).rows.maps for n in range(4)])
    courses = [course for n in range(4) for course in prepared(n).rows.courses]
    assert len(cohort) == len(maps) == 14
    for rows in ([13, 0, 5, 5, 2], list(range(14)), [7], []):
        found = cohort.fetch(np.array(rows, dtype=np.int64))
        assert np.array_equal(found["map"], maps[rows])
        assert found["map"].dtype == np.float16
        assert len(found["course"]) == len(rows)
        for course, row in zip(found["course"], rows, strict=True):
            assert course.dtype == np.float32
            assert np.array_equal(course, courses[row])
    assert list(cohort.fetch(np.array([1]), ("course",))) == ["course"]
    found["course"] = cohort.fetch(np.array([0]))["course"][0]
    found["course"][:] = 0  # a copy: the cohort is not written to
    assert np.array_equal(cohort.fetch(np.array([0]))["course"][0], courses[0])


@pytest.mark.parametrize("row", [-1, 14])
def test_fetch_outside(cohort: Cohort, row: int) -> None:
    with pytest.raises(IndexError):
        cohort.fetch(np.array([row]))


def test_datasets_reads_the_same(cohort: Cohort) -> None:
    table = cohort.dataset.with_format("numpy")
    assert len(table) == 14
    assert np.array_equal(np.asarray(table[5]["map"], dtype=np.float16), cohort.fetch(np.array([5]))["map"][0])
    assert np.array_equal(table[5]["course"], cohort.fetch(np.array([5]))["course"][0])


def test_index(cohort: Cohort) -> None:
    index = cohort.index
    assert index["group_code"].tolist() == [0] * 2 + [1] * 3 + [2] * 4 + [3] * 5
    assert index["subject_code"].tolist() == [0] * 5 + [1] * 9
    assert index["length"].tolist() == [20] * 2 + [23] * 3 + [26] * 4 + [29] * 5
    assert index["component"].tolist() == [1, 2, 1, 2, 3, 1, 2, 3, 4, 1, 2, 3, 4, 5]
    assert index["run"].tolist()[-1] == "run-2"
    assert index["site"].tolist() == ["A"] * 5 + ["B"] * 9


def test_labels_from_rows_sessions_and_participants(cohort: Cohort) -> None:
    assert cohort.labels("network")[:4].tolist() == ["motor", "", "motor", ""]
    assert cohort.labels("state").tolist() == ["post"] * 2 + ["pre"] * 7 + [None] * 5
    assert cohort.labels("age").tolist() == [30] * 5 + [None] * 9
    assert isinstance(cohort.labels("age")[0], int)
    assert cohort.labels("n_volumes").tolist()[-1] == 29
    with pytest.raises(UserError, match=r"no column 'stat' \(did you mean 'state'\?\)"):
        cohort.labels("stat")


def test_tables(cohort: Cohort) -> None:
    sessions = cohort.sessions
    assert list(sessions)[:6] == ["participant_id", "session_id", "run_id", "n_volumes", "mean_fd", "tsnr"]
    assert sessions["tsnr"].tolist() == [50, 51, 52, 53]
    assert sessions["mean_fd"].tolist()[:3] == [0.5] * 3  # the user's, since the files had none
    assert cohort.participants["participant_id"].tolist() == ["sub-01", "sub-02"]
    assert cohort.participants["group"].isna().tolist() == [False, True]


def test_contract_and_statistics(cohort: Cohort) -> None:
    contract = cohort.info["contract"]
    assert contract["map"]["space"] == "MNI152"
    assert "source" not in contract["map"]
    assert contract["map"]["voxels"] == VOXELS
    assert contract["course"]["band"] == [0.01, 0.1]
    assert contract["course"]["tr"] == 2.0
    values = np.concatenate([prepared(n).rows.maps.ravel() for n in range(4)]).astype(np.float64)
    found = cohort.info["statistics"]["map"]
    assert found == pytest.approx(
        {"mean": values.mean(), "sd": values.std(), "min": values.min(), "max": values.max()}, abs=1e-5
    )
    assert np.array_equal(cohort.mask, mask())
    assert np.array_equal(cohort.affine, AFFINE)
    assert cohort.info["subjects"] == 2
    assert cohort.info["scans"] == 4


@pytest.mark.parametrize(
    ("times", "tr", "trs"), [([2.0, 2.5], None, [2.0, 2.5]), ([np.nan, 2.0], None, [2.0, None]), ([np.nan] * 2, None, [None])]
)
def test_mixed_or_unknown_repetition_times(tmp_path: Path, times: list[float], tr: float | None, trs: list[float]) -> None:
    cohort = write_cohort(tmp_path / "c", (prepared(n, t) for n, t in enumerate(times)), parts())
    assert cohort.info["contract"]["course"]["tr"] is tr
    assert cohort.info["contract"]["course"]["trs"] == trs
    assert np.array_equal(cohort.index["tr"].to_numpy()[[0, -1]], np.array(times, dtype=np.float32), equal_nan=True)


def test_courses_only(tmp_path: Path) -> None:
    def scans() -> Iterator[PreparedScan]:
        for n in range(2):
            item = prepared(n)
            yield replace(item, rows=replace(item.rows, maps=None))

    cohort = write_cohort(tmp_path / "c", scans(), CohortParts(name="c", kind="courses"))
    assert cohort.modalities == ("course",)
    assert cohort.mask is None
    assert cohort.affine is None
    assert list(cohort.fetch(np.array([0, 1]))) == ["course"]


def test_same_input_same_bytes(tmp_path: Path, cohort: Cohort) -> None:
    again = write_cohort(tmp_path / "again", (prepared(n) for n in range(4)), parts())
    assert again.info == cohort.info
    again.verify()


def test_scans_out_of_order(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sorted"):
        write_cohort(tmp_path / "c", (prepared(n) for n in (1, 0)), parts())
    assert list(tmp_path.iterdir()) == []


def test_content_hashes(cohort: Cohort) -> None:
    assert cohort.content_hashes() == {"sub-01": {"0" * 64, "1" * 64}, "sub-02": {"2" * 64, "3" * 64}}


def test_pickled_cohort_reads_the_same(cohort: Cohort) -> None:
    rows = np.array([3, 1])
    cohort.fetch(rows)
    again = pickle.loads(pickle.dumps(cohort))  # noqa: S301 - as a loader's worker process gets it
    assert np.array_equal(again.fetch(rows)["map"], cohort.fetch(rows)["map"])
    assert str(again) == f"{cohort.path}: 2 subjects, 4 scans, 14 rows (map, course)"


def test_damage_is_told(cohort: Cohort) -> None:
    rows = cohort.path / "rows.arrow"
    content = rows.read_bytes()
    rows.write_bytes(content[:-10])
    with pytest.raises(UserError, match=r"rows\.arrow: has \d+ bytes instead of"):
        Cohort.open(cohort.path)
    flipped = bytearray(content)
    flipped[-100] ^= 0xFF
    rows.write_bytes(bytes(flipped))
    with pytest.raises(UserError, match="altered"):
        Cohort.open(cohort.path).verify()
    rows.unlink()
    with pytest.raises(UserError, match="missing"):
        Cohort.open(cohort.path)
    record = cohort.path / "cohort.json"
    record.write_text(json.dumps({**cohort.info, "version": 99}))
    with pytest.raises(UserError, match="version 1"):
        Cohort.open(cohort.path)
    record.write_text(record.read_text()[:50])
    with pytest.raises(UserError, match="not valid JSON"):
        Cohort.open(cohort.path)
    with pytest.raises(UserError, match="no prepared cohort here"):
        Cohort.open(cohort.path / "absent")
