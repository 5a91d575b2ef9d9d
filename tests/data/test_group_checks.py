"""What only the raw files show of the participants' groups."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ssl4neuro.data.checks import Record
from ssl4neuro.data.group_checks import check_groups
from ssl4neuro.data.scan_properties import header_properties

SUBJECTS = 24


def _records(rng: np.random.Generator) -> list[Record]:
    """Scans that differ at random."""
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    return [
        Record(
            f"sub-{n:02d}/func/sub-{n:02d}_bold.nii.gz", f"sub-{n:02d}", volumes=int(rng.integers(150, 200)), tr=2.0,
            shape=(60, 60, 36), affine=affine, intensity=float(rng.uniform(300, 900)), header={"number type": "int16"},
        )
        for n in range(SUBJECTS)
    ]  # fmt: skip


def _table(folder: Path, header: str, values: list[str]) -> Path:
    lines = [f"sub-{n:02d}\t{value}" for n, value in enumerate(values)]
    (folder / "participants.tsv").write_text("\n".join([f"participant_id\t{header}", *lines]) + "\n")
    return folder / "participants.tsv"


GROUPS = ["patient", "control"] * (SUBJECTS // 2)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: setattr(r, "file", f"patients/{r.file}"), "file name: AUC 1.00"),
        (lambda r: setattr(r, "file", r.file.removesuffix(".gz")), "file type: AUC 1.00"),
        (lambda r: setattr(r, "tr", 2.5), "repetition time: AUC 1.00"),
        (lambda r: setattr(r, "volumes", 240), "volumes: AUC 1.00"),
        (lambda r: setattr(r, "affine", np.diag([2.0, 2.0, 4.0, 1.0])), "voxel size: AUC 1.00"),
        (lambda r: setattr(r, "intensity", r.intensity + 5000), "mean intensity: AUC 1.00"),
        (lambda r: r.header.update({"number type": "float32"}), "number type: AUC 1.00"),
    ],
)
def test_a_mark_of_one_group_is_told(tmp_path: Path, change, told: str) -> None:
    records = _records(np.random.default_rng(0))
    table = _table(tmp_path, "group", GROUPS)
    assert check_groups(records, table, "participants.tsv") == []
    for record, group in zip(records, GROUPS, strict=True):
        if group == "patient":
            change(record)
    (finding,) = check_groups(records, table, "participants.tsv")
    assert (finding.level, finding.problem) == ("warning", f"the files tell 'group' ({told})")


def test_sites_may_differ_and_names_are_no_groups(tmp_path: Path) -> None:
    """A scanner has its own voxels; a column with a value for everybody has no groups; few subjects say nothing."""
    records = _records(np.random.default_rng(1))
    for record, group in zip(records, GROUPS, strict=True):
        record.tr = 2.0 if group == "patient" else 3.0
    assert check_groups(records, _table(tmp_path, "site", GROUPS), "t") == []
    assert check_groups(records, _table(tmp_path, "code", [f"x{n}" for n in range(SUBJECTS)]), "t") == []
    assert check_groups(records[:6], _table(tmp_path, "group", GROUPS), "t") == []
    assert len(check_groups(records, _table(tmp_path, "group", GROUPS), "t")) == 1


def test_header_text_without_its_numbers() -> None:
    image = nib.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    image.header["descrip"] = b"patient 12"
    image.header.set_slope_inter(2.0, 0.0)
    found = header_properties(image)
    assert found["header field descrip"] == "patient #"
    assert (found["number type"], found["header scaling"]) == ("int16", "scaled")
