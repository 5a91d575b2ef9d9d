"""Maps of the brain: NIfTI on the grid in MNI space, and a figure that is drawn without the network or a display."""

from pathlib import Path
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
from PIL import Image

from ssl4neuro.data.brain_plots import draw_brain, write_map
from ssl4neuro.data.scan import Grid

AFFINE = np.array([[10.0, 0, 0, -90], [0, 10, 0, -120], [0, 0, 10, -70], [0, 0, 0, 1]])


def grid() -> Grid:
    mask = np.zeros((18, 22, 18), dtype=bool)
    mask[2:-2, 2:-2, 2:-2] = True
    return Grid(AFFINE, mask)


def test_a_map_is_read_back_where_it_was(tmp_path: Path) -> None:
    place = grid()
    values = np.random.default_rng(0).normal(size=int(place.mask.sum())).astype(np.float32)
    image = nib.load(write_map(tmp_path / "m.nii.gz", values, place))
    assert image.shape == (18, 22, 18)
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 4
    assert np.allclose(image.affine, AFFINE)
    data = np.asarray(image.dataobj)
    assert np.array_equal(data[place.mask], values)
    assert not data[~place.mask].any()
    assert write_map(tmp_path / "n.nii.gz", values, place).read_bytes() == (tmp_path / "m.nii.gz").read_bytes()


def test_a_figure_shows_the_values_and_says_what_they_are(tmp_path: Path) -> None:
    place = grid()
    values = np.zeros(int(place.mask.sum()))
    values[: len(values) // 20] = -2.0  # the left side
    png, svg = draw_brain(tmp_path / "f", values, place, title="motor (n = 7)", label="fall of the score (SD)")
    assert png.suffix == ".png"
    picture = np.asarray(Image.open(png).convert("RGB")).astype(int)
    blue = (picture[..., 2] - picture[..., 0] > 60) & (picture.sum(2) < 500)
    assert blue[:400].sum() > 300, "negative values are blue on the glass brain"
    ElementTree.parse(svg)
