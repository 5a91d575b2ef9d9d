"""A small fMRIPrep-like tree for tests: a few maps, and scans that mix them with noise."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE, VOLUMES, COMPONENTS = (6, 7, 5), 40, 4
AFFINE = np.array([[-8.0, 0, 0, 20], [0, 8, 0, -30], [0, 0, 8, -10], [0, 0, 0, 1]])


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE, tr: float | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    if tr is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    nib.save(image, path)
    return path


def mask(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    inside = np.zeros(shape, dtype=bool)
    inside[1:-1, 1:-1, 1:-1] = True
    return inside


def maps(seed: int = 0, components: int = COMPONENTS) -> np.ndarray:
    """Skewed maps [x, y, z, components], 0 outside the mask."""
    values = np.random.default_rng(seed).gamma(1.0, size=(*SHAPE, components))
    return (values * mask()[..., None]).astype(np.float32)


def scan(seed: int, volumes: int = VOLUMES, baseline: float = 1000.0, scale: float = 10.0) -> np.ndarray:
    """A scan [x, y, z, volumes] of mixed maps over a baseline, with drift and noise."""
    rng = np.random.default_rng(1000 + seed)
    courses = rng.standard_normal((COMPONENTS, volumes))
    signal = maps() @ courses + 0.3 * rng.standard_normal((*SHAPE, volumes)) + 0.02 * np.arange(volumes)
    return (baseline * (1 + 0.1 * rng.random(SHAPE))[..., None] + scale * signal).astype(np.float32)


def scan_name(
    subject: str, session: str = "", task: str = "rest", run: str = "", space: str = "MNI152", desc: str = "preproc"
) -> str:
    entities = [f"sub-{subject}", session and f"ses-{session}", f"task-{task}", run and f"run-{run}"]
    entities += [space and f"space-{space}", f"desc-{desc}"]
    return "_".join(e for e in entities if e) + "_bold.nii.gz"


def add_scan(
    root: Path, subject: str, seed: int, session: str = "", tr: float = 2.0, volumes: int = VOLUMES, **name: str
) -> Path:
    folder = root / f"sub-{subject}" / (f"ses-{session}" if session else "") / "func"
    path = save(folder / scan_name(subject, session, **name), scan(seed, volumes), tr=0.0)
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(json.dumps({"RepetitionTime": tr}))
    return path


def make_tree(root: Path, subjects: int = 3) -> Path:
    """`subjects` subjects with one scan each, plus maps.nii.gz, mask.nii.gz, networks.tsv and participants.tsv."""
    for number in range(subjects):
        add_scan(root, f"{number + 1:02d}", number)
    save(root / "maps.nii.gz", maps())
    save(root / "mask.nii.gz", mask().astype(np.uint8))
    (root / "networks.tsv").write_text("component\tnetwork\n1\tmotor\n2\tvision\n3\tlanguage\n4\tfrontal\n")
    lines = [f"sub-{n + 1:02d}\t{20 + n}\t{'AB'[n % 2]}" for n in range(subjects)]
    (root / "participants.tsv").write_text("\n".join(["participant_id\tage\tsite", *lines]) + "\n")
    return root
