"""EMIDEC's layout: static slices with their contours."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from ssl4neuro.data.readers.emidec import EmidecReader
from ssl4neuro.errors import UserError


def case(root: Path, name: str = "Case_N001", contours: bool = True, size: float = 1.0) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (10, 8, 3)).astype(np.uint8)
    values[7, 2, :] = 255
    for folder, content in (("Images", values), ("Contours", (values == 255).astype(np.uint8) * 4)):
        if folder == "Contours" and not contours:
            continue
        (root / name / folder).mkdir(parents=True)
        nib.save(nib.Nifti1Image(content, np.diag([size, size, 8.0, 1.0])), root / name / folder / f"{name}.nii.gz")
    return root / name


@pytest.mark.parametrize(("size", "spacing"), [(1.0, None), (1.5, (1.5, 1.5)), (2000.0, None)])
def test_slices_are_single_frames_with_masks(tmp_path: Path, size: float, spacing: object) -> None:
    case(tmp_path, size=size)
    reader = EmidecReader(tmp_path)
    rows = reader.read(reader.scans()[0])
    assert len(rows.clips) == 3
    for number, clip in enumerate(rows.clips):
        assert (clip.slice, clip.view, clip.frames.shape, clip.frames.dtype) == (number, "lge", (1, 8, 10), np.uint8)
        assert clip.frames[0, 2, 7] == 255  # row is y, column is x
        assert clip.mask is not None
        assert np.array_equal(clip.mask[0] == 4, clip.frames[0] == 255)
        assert clip.mask_frames is not None
        assert clip.mask_frames.tolist() == [0]
        assert (clip.spacing, clip.times) == (spacing, None)
    assert reader.description() == {"cine": {"cyclic": None}}


def test_without_contours_and_with_wrong_ones(tmp_path: Path) -> None:
    folder = case(tmp_path, contours=False)
    assert EmidecReader(tmp_path).read(EmidecReader(tmp_path).scans()[0]).clips[0].mask is None
    (folder / "Contours").mkdir()
    nib.save(nib.Nifti1Image(np.zeros((8, 10, 3), np.uint8), np.eye(4)), folder / "Contours" / "a.nii.gz")
    with pytest.raises(UserError, match=r"8×10×3.*10×8×3"):
        EmidecReader(tmp_path).read(EmidecReader(tmp_path).scans()[0])
    (folder / "Images" / "Case_N001.nii.gz").unlink()
    with pytest.raises(UserError, match="has 0 images"):
        EmidecReader(tmp_path)
    with pytest.raises(UserError, match="no Case_"):
        EmidecReader(folder / "Contours")


def test_real_cases(shared_data: Path) -> None:
    source = shared_data / "emidec30"
    if not source.is_dir():
        pytest.skip(f"no {source}")
    reader = EmidecReader(source)
    studies = [reader.read(scan) for scan in reader.scans()]
    assert (len(studies), sum(len(rows.clips) for rows in studies)) == (30, 208)
    labels = {int(v) for rows in studies for clip in rows.clips for v in np.unique(clip.mask)}
    assert labels == {0, 1, 2, 3, 4}
    # Infarct (3) lies in the heart: contours and images have one orientation, so labelled pixels are not where the air is.
    for rows in studies[:5]:
        clip = rows.clips[len(rows.clips) // 2]
        assert clip.mask is not None
        assert clip.frames[0][clip.mask[0] == 1].mean() > clip.frames.mean()
