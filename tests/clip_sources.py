"""Small sources of clips for tests: ACDC-like patients whose ventricles beat at a place and a size of their own."""

from pathlib import Path

import nibabel as nib
import numpy as np


def beating(seed: int, frames: int = 10, slices: int = 2, size: int = 40, enlarged: bool = False) -> np.ndarray:
    """Integers [x, y, slice, time]: a bright disc that contracts on a noisy ground."""
    rng = np.random.default_rng(seed)
    x, y = np.indices((size, size))
    radius = (11 if enlarged else 8) - 3 * np.sin(np.pi * np.arange(frames) / frames) * (0.4 if enlarged else 1)
    middle = size / 2 + rng.uniform(-3, 3, 2)
    disc = (x[..., None] - middle[0]) ** 2 + (y[..., None] - middle[1]) ** 2 < radius**2
    values = 60 + 400 * disc[:, :, None] * rng.uniform(0.8, 1, (slices, 1)) + rng.normal(0, 15, (size, size, slices, frames))
    return values.clip(0).astype(np.int16)


def acdc(root: Path, patients: int = 6, frames: int = 10, slices: int = 2) -> Path:
    """A folder in ACDC's layout, ED and ES masks included; every second patient has a large, weak ventricle."""
    for number in range(1, patients + 1):
        name = f"patient{number:03d}"
        folder = root / name
        folder.mkdir(parents=True)
        values = beating(number, frames, slices, enlarged=number % 2 == 0)
        affine = np.diag([1.5, 1.5, 8.0, 1.0])
        nib.save(nib.Nifti1Image(values, affine), folder / f"{name}_4d.nii.gz")
        for frame in (1, frames // 2):
            still = values[..., frame - 1]
            nib.save(nib.Nifti1Image(still, affine), folder / f"{name}_frame{frame:02d}.nii.gz")
            nib.save(
                nib.Nifti1Image(((still > 250) * 3).astype(np.uint8), affine), folder / f"{name}_frame{frame:02d}_gt.nii.gz"
            )
        group = "DCM" if number % 2 == 0 else "NOR"
        text = f"ED: 1\nES: {frames // 2}\nGroup: {group}\nHeight: 170.0\nNbFrame: {frames}\nWeight: 70.0\n"
        (folder / "Info.cfg").write_text(text)
    return root
