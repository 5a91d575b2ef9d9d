"""Maps of the brain as NIfTI and as figures on the MNI152 template that nilearn bundles; nothing is fetched.

A figure has a glass brain on top and slices below, one labelled colour bar, and n in its title.
"""

import gzip
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nibabel as nib
import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from ssl4neuro.data.grid import grid_image
from ssl4neuro.data.scan import Grid

SIGNED, POSITIVE = "RdBu_r", "YlOrRd"
GLASS_SHARE = (
    0.1  # of the voxels, the largest ones, shown on the glass brain: it projects the maximum, all of them would fill it
)
SLICES = 7
TINY = 1e-12
FONT: dict[Any, Any] = {"font.family": "DejaVu Sans", "svg.hashsalt": "ssl4neuro", "text.parse_math": False}


def write_map(path: Path, values: Float[np.ndarray, "*volumes voxels"], grid: Grid, space: str = "mni") -> Path:
    """Write in-mask values as NIfTI (float32, mm), 0 outside the mask; equal maps are equal files.

    Args:
        space: code of the coordinates: mni, talairach, aligned, scanner or unknown.
    """
    image = grid_image(np.asarray(values, dtype=np.float32).squeeze(), grid)
    image.header.set_xyzt_units("mm")
    for place in (image.set_sform, image.set_qform):
        place(grid.affine, code=space)
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=4, mtime=0))
    return path


def draw_brain(stem: Path, values: Float[np.ndarray, "voxels"], grid: Grid, *, title: str, label: str) -> list[Path]:
    """`STEM.png` and `STEM.svg`: a glass brain of the largest tenth, and axial slices of all values on the MNI152 template.

    Args:
        stem: path without extension.
        values: in-mask values; colours diverge around 0 where some are negative.
        grid: in MNI space, mm.
        title: with the number of subjects.
        label: of the colour bar, with the unit.
    """
    from nilearn import plotting

    signed = bool((values < 0).any())
    highest = float(np.abs(values).max()) or 1.0
    low = -highest if signed else 0.0
    show: dict[str, Any] = {"cmap": SIGNED if signed else POSITIVE, "vmin": low, "vmax": highest, "symmetric_cbar": signed}
    image = grid_image(np.asarray(values, dtype=np.float32), grid)
    image = nib.Nifti1Image(np.asarray(image.dataobj).reshape(grid.mask.shape), grid.affine)
    with mpl.rc_context(FONT):
        figure = Figure(figsize=(9.5, 4.6), dpi=150, facecolor="white")
        FigureCanvasAgg(figure)
        show |= {"figure": figure, "colorbar": False, "annotate": False}
        top = max(float(np.quantile(np.abs(values), 1 - GLASS_SHARE)) * (1 - 1e-6), TINY)  # values equal to it stay
        glass = {**show, "threshold": top, "plot_abs": False, "axes": (0.0, 0.42, 0.88, 0.47)}
        slices = {**show, "threshold": TINY, "black_bg": False, "draw_cross": False, "axes": (0.01, 0.02, 0.87, 0.38)}
        above = plotting.plot_glass_brain(image, display_mode="lyrz", **glass)
        below = plotting.plot_stat_map(image, display_mode="z", cut_coords=_slices(grid), **slices)
        for display in (above, below):
            display.annotate(size=8)
        bar = figure.colorbar(
            ScalarMappable(Normalize(low, highest), show["cmap"]), cax=figure.add_axes((0.9, 0.12, 0.018, 0.68))
        )
        bar.set_label(label, fontsize=8.5)
        bar.ax.tick_params(labelsize=8)
        figure.text(0.01, 0.985, title, fontsize=10.5, fontweight="bold", va="top")
        figure.text(0.01, 0.925, f"above: the largest {GLASS_SHARE:.0%} of voxels; below: all, z in mm", fontsize=8, va="top")
        paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
        for path in paths:
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return paths


def _slices(grid: Grid) -> list[float]:
    """Heights (mm) of evenly spaced axial slices through the mask."""
    z = (np.argwhere(grid.mask) @ grid.affine[:3, :3].T + grid.affine[:3, 3])[:, 2]
    low, high = np.quantile(z, [0.06, 0.97])
    return [float(height) for height in np.linspace(low, high, SLICES).round()]
