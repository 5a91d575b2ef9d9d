import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl4neuro.data.readers.courses import CourseReader, read_text, scan_key, time_axis_of
from ssl4neuro.errors import UserError

SERIES = np.random.default_rng(0).standard_normal((30, 4))


def read_all(path: Path, **options: object) -> dict[str, np.ndarray]:
    reader = CourseReader(path, **options)  # type: ignore[arg-type]
    return {scan.name: reader.read(scan).courses for scan in reader.scans()}


def test_npz_with_a_scan_per_key(tmp_path: Path) -> None:
    keys = ["con_01", "sub-02_ses-pre", "03/post", "03/pre/2"]
    np.savez(tmp_path / "a.npz", **{key: SERIES + i for i, key in enumerate(keys)})
    found = read_all(tmp_path / "a.npz")
    assert list(found) == ["03 post", "03 pre 2", "con_01", "sub-02 ses-pre"]
    assert np.array_equal(found["con_01"], SERIES.T)
    assert np.array_equal(found["03 pre 2"], (SERIES + 3).T)


@pytest.mark.parametrize(
    ("name", "separator", "header"), [("a.csv", ",", ""), ("a.tsv", "\t", "V1\tV2\tV3\tV4\n"), ("a.1D", "  ", "# 3dROI\n")]
)
def test_tables(tmp_path: Path, name: str, separator: str, header: str) -> None:
    lines = "\n".join(separator.join(f"{x:.9f}" for x in row) for row in SERIES)
    (tmp_path / name).write_text(header + lines + "\n")
    assert np.allclose(read_all(tmp_path / name)["a"], SERIES.T, atol=1e-8)


def test_folder_of_bids_like_tables(tmp_path: Path) -> None:
    for subject in ("01", "02"):
        for session in ("pre", "post"):
            file = tmp_path / f"sub-{subject}" / "func" / f"sub-{subject}_ses-{session}_task-rest_atlas-AAL_timeseries.tsv"
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savetxt(file, SERIES, delimiter="\t")
            file.with_suffix(".json").write_text(json.dumps({"RepetitionTime": 1.5}))
    (tmp_path / "participants.tsv").write_text("participant_id\nsub-01\n")
    (tmp_path / "sub-01" / "func" / "sub-01_task-rest_desc-confounds_timeseries.tsv").write_text("x\n1\n")
    reader = CourseReader(tmp_path)
    assert [s.name for s in reader.scans()] == ["sub-01 ses-post", "sub-01 ses-pre", "sub-02 ses-post", "sub-02 ses-pre"]
    assert reader.read(reader.scans()[0]).tr == 1.5
    assert CourseReader(tmp_path, tr=2.5).read(reader.scans()[0]).tr == 2.5
    other = tmp_path / "sub-01" / "func" / "sub-01_ses-pre_task-rest_atlas-Glasser_timeseries.tsv"
    np.savetxt(other, SERIES, delimiter="\t")
    with pytest.raises(UserError, match=r"several values of atlas \(AAL, Glasser\)"):
        CourseReader(tmp_path)
    assert len(CourseReader(Path(f"{tmp_path}/**/*atlas-AAL*.tsv")).scans()) == 4


def test_time_unknown(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=SERIES)
    reader = CourseReader(tmp_path / "a.npz")
    assert np.isnan(reader.read(reader.scans()[0]).tr)


@given(times=st.lists(st.integers(20, 40), min_size=2, max_size=5), regions=st.integers(2, 60), transposed=st.booleans())
def test_orientation_is_never_wrong_where_certain(times: list[int], regions: int, transposed: bool) -> None:
    shapes = [(regions, t) if transposed else (t, regions) for t in times]
    for known in (None, regions):
        axis, certain = time_axis_of(shapes, known)
        if certain:
            assert axis == int(transposed)
        else:
            assert axis == 0
    assert time_axis_of(shapes, None)[1] == (len(set(times)) > 1)


def test_doubtful_orientation_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", x=SERIES, y=SERIES + 1)
    assert read_all(tmp_path / "a.npz")["x"].shape == (4, 30)
    assert "30 volumes × 4 regions; if not so, give --time-axis 1" in capsys.readouterr().err
    assert read_all(tmp_path / "a.npz", time_axis=1)["x"].shape == (30, 4)
    assert "if not so" not in capsys.readouterr().err


def test_networks_settle_the_orientation(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=SERIES.T, y=SERIES.T + 1)
    (tmp_path / "networks.tsv").write_text("component\tnetwork\n1\tA\n2\tB\n3\tA\n4\tB\n")
    reader = CourseReader(tmp_path / "a.npz", networks=tmp_path / "networks.tsv")
    rows = reader.read(reader.scans()[0])
    assert np.array_equal(rows.courses, SERIES.T)
    assert rows.network == ["A", "B", "A", "B"]


def test_dropped_volumes(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=SERIES)
    assert np.array_equal(read_all(tmp_path / "a.npz", drop_volumes=5)["a"], SERIES.T[:, 5:])


def test_regions_differ(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=SERIES, y=SERIES[:, :3])
    with pytest.raises(UserError, match=r"a\.npz\[y\]: has 3 regions, .*\[x\] has 4"):
        read_all(tmp_path / "a.npz", time_axis=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable table"),
        ("1,2\n3,x\n", "row 2, column 2: 'x'"),
        ("1,2\n3\n5,6,7\n", "not a readable table|not numbers"),
    ],
)
def test_bad_tables(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_text(tmp_path / "a.csv")


def test_bad_archives(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(UserError, match="not a readable npz"):
        CourseReader(tmp_path / "text.npz")
    np.savez(tmp_path / "pickle.npz", x=np.array([[{}, 1]], dtype=object))
    with pytest.raises(UserError, match="plain numbers"):
        read_all(tmp_path / "pickle.npz", time_axis=0)
    np.savez(tmp_path / "flat.npz", x=np.arange(20.0))
    with pytest.raises(UserError, match="is 1-D"):
        read_all(tmp_path / "flat.npz")
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(UserError, match="no arrays"):
        CourseReader(tmp_path / "empty.npz")
    np.savez(tmp_path / "cut.npz", x=SERIES, y=SERIES)
    content = (tmp_path / "cut.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"cut\.npz"):
        CourseReader(tmp_path / "cut.npz")


def test_nothing_there(tmp_path: Path) -> None:
    for path, message in (
        (tmp_path, "no time series"),
        (tmp_path / "absent.npz", "no such file"),
        (tmp_path / "*.csv", "no time series"),
    ):
        with pytest.raises(UserError, match=message):
            CourseReader(path)
    (tmp_path / "a.mat").write_text("")
    with pytest.raises(UserError, match=r"\.npz, \.csv"):
        CourseReader(tmp_path / "a.mat")


def test_names_that_are_no_scans() -> None:
    for text in ("", "a/b/c/d", "/x", "a\tb"):
        with pytest.raises(UserError, match="does not name a scan"):
            scan_key(text)
    for text in ("sub-../../x", "../x", "a/..", "a..b"):
        with pytest.raises(UserError, match="does not name a scan"):
            scan_key(text)


def test_one_scan_twice(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        np.savetxt(tmp_path / folder / "sub-01_timeseries.csv", SERIES, delimiter=",")
    with pytest.raises(UserError, match="holds sub-01, and so does"):
        CourseReader(tmp_path)


def test_stroke_data(shared_data: Path) -> None:
    reader = CourseReader(shared_data / "stroke-aal116")
    assert len(reader.scans()) == 61
    rows = reader.read(reader.scans()[0])
    assert rows.courses.shape == (116, 100)
    assert np.isnan(rows.tr)
