"""`prepare` against nilearn's maskers doing the same two regressions in the same run.

    python tests/benchmarks/bench_prepare.py [--data FOLDER] [--volumes 300]

1. rest20 (20 real scans, 17×20×17×148, 53 maps): the whole `prepare ica` (hashing, dual regression, standardising, Arrow,
   fsync) against `NiftiMapsMasker` for the courses and `NiftiMasker` + least squares for the maps.
2. One synthetic scan of 61×73×61×300 with 53 maps, as .nii and .nii.gz: both regressions, no cohort.
3. Memory: peak resident size of `prepare` for 5 and 20 of the scans.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl4neuro.data.dual_regression import SpatialRegression, dual_regression
from ssl4neuro.data.grid import load_image, make_grid, to_grid
from ssl4neuro.data.prepare import prepare_ica
from ssl4neuro.data.standardise import detrend


def nilearn_courses(scan: str, maps: str, mask: str) -> np.ndarray:
    """Step 1 as nilearn does it, [time, components], detrended afterwards: its fastest setting."""
    from nilearn.maskers import NiftiMapsMasker

    return detrend(NiftiMapsMasker(maps, mask_img=mask, standardize=None).fit_transform(scan).T.astype(np.float64)).T


def nilearn_maps(scan: str, mask: str, courses: np.ndarray) -> np.ndarray:
    """Step 2: the scan once more through NiftiMasker, then least squares."""
    from nilearn.maskers import NiftiMasker

    data = NiftiMasker(mask, standardize=None).fit_transform(scan)
    trend = np.column_stack([np.ones(len(data)), np.linspace(-1, 1, len(data))])
    return np.linalg.lstsq(np.column_stack([courses, trend]).astype(np.float32), data, rcond=None)[0][: courses.shape[1]]


def ours(scan: str, spatial: SpatialRegression, grid: object) -> tuple[np.ndarray, np.ndarray]:
    result = dual_regression(to_grid(scan, grid), spatial, scan, detrend)  # type: ignore[arg-type]
    return result.courses, result.maps


def timed(call: Callable[[], object], repeats: int = 3) -> tuple[float, object]:
    """Shortest of some runs in seconds, and the last result."""
    times, value = [], None
    for _ in range(repeats):
        start = time.perf_counter()
        value = call()
        times.append(time.perf_counter() - start)
    return min(times), value


def rest20(root: Path) -> None:
    files = {name: str(root / f"{name}.nii.gz") for name in ("neuromark53_maps", "mask")}
    scans = sorted(str(path) for path in root.glob("sub-*/func/*_bold.nii.gz"))

    def reference() -> None:
        for scan in scans:
            nilearn_maps(scan, files["mask"], nilearn_courses(scan, files["neuromark53_maps"], files["mask"]))

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            prepare_ica(Path(folder) / "c", bids=root, maps=files["neuromark53_maps"], mask=files["mask"])

    mine, _ = timed(whole)
    theirs, _ = timed(reference)
    print(
        f"rest20, {len(scans)} scans: prepare {mine:.2f} s, nilearn's maskers {theirs:.2f} s: {theirs / mine:.1f} times as fast"
    )
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            call = {"bids": root, "maps": files["neuromark53_maps"], "mask": files["mask"], "workers": workers}
            first, _ = timed(lambda c=call, f=folder: prepare_ica(Path(f) / "c", **c), 1)
            second, _ = timed(lambda c=call, f=folder: prepare_ica(Path(f) / "c", **c), 1)
        print(f"rest20, workers {workers}: {first:.2f} s, again with nothing changed {second:.3f} s")


def large_scan(volumes: int) -> None:
    rng = np.random.default_rng(0)
    shape, affine = (61, 73, 61), np.diag([3.0, 3.0, 3.0, 1.0])
    index = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"), axis=-1)
    inside = (index**2).sum(axis=-1) < 0.6
    with tempfile.TemporaryDirectory() as folder:
        maps, mask = f"{folder}/maps.nii", f"{folder}/mask.nii"
        values = np.zeros((*shape, 53), dtype=np.float32)
        values[inside] = rng.gamma(1.0, size=(int(inside.sum()), 53)) - 1.0  # centred, since nilearn's step 1 has no intercept
        values[inside] -= values[inside].mean(axis=0)
        nib.save(nib.Nifti1Image(values, affine), maps)
        nib.save(nib.Nifti1Image(inside.astype(np.uint8), affine), mask)
        data = (rng.standard_normal((*shape, volumes), dtype=np.float32) * 50 + 1000).astype(np.int16)
        grid = make_grid(load_image(maps), mask)
        spatial = SpatialRegression.of(to_grid(maps, grid), maps)
        for ending in (".nii", ".nii.gz"):
            scan = f"{folder}/scan{ending}"
            nib.save(nib.Nifti1Image(data, affine), scan)
            mine, found = timed(lambda s=scan: ours(s, spatial, grid))
            first, courses = timed(lambda s=scan: nilearn_courses(s, maps, mask))
            second, expected = timed(lambda s=scan, c=courses: nilearn_maps(s, mask, c))  # type: ignore[arg-type]
            pairs = zip(found[1], expected, strict=True)  # type: ignore[index, call-overload]
            agreement = min(np.corrcoef(a, b)[0, 1] for a, b in pairs)
            print(
                f"61×73×61×{volumes}{ending}, {int(inside.sum())} voxels: both regressions {mine:.2f} s, "
                f"nilearn {first:.2f} + {second:.2f} s: {(first + second) / mine:.1f} times as fast "
                f"(against its step 1 alone {first / mine:.1f}); least correlation of a map {agreement:.6f}"
            )


def memory(root: Path) -> None:
    """Each in a process of its own, since a peak never goes down."""
    for subjects in (5, 20):
        command = [sys.executable, __file__, "--data", str(root), "--peak", str(subjects)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        print(f"peak resident size with {subjects} scans: {done.stdout.strip()} MB")


def peak(root: Path, subjects: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "part"
        part.mkdir()
        for subject in sorted(root.glob("sub-*"))[:subjects]:
            os.symlink(subject, part / subject.name)
        prepare_ica(Path(folder) / "c", bids=part, maps=root / "neuromark53_maps.nii.gz", mask=root / "mask.nii.gz")
    print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("SSL4NEURO_DATA", str(Path(__file__).resolve().parents[3] / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(default) / "rest20", help="folder of rest20")
    parser.add_argument("--volumes", type=int, default=300)
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.peak:
        peak(given.data, given.peak)
    else:
        if given.data.is_dir():
            rest20(given.data)
            memory(given.data)
        else:
            print(f"no rest20 at {given.data}")
        large_scan(given.volumes)
