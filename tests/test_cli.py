"""The command line as a user meets it: bad input ends in one line, exit status 2, and nothing half-written."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from ssl4neuro.cli import main
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.shipped import recipes

RECIPE: dict[str, Any] = {
    "modalities": {
        "map": {"encoder": {"name": "volume_resnet", "preset": "tiny"}},
        "course": {"encoder": {"name": "course_conv", "preset": "tiny"}},
    },
    "objectives": {"cross": {"name": "infonce", "negatives": "all"}},
    "sampling": {"kind": "sessions", "batch_size": 4},
    "split": {"holdout": 0.3, "validation": 0.2},
    "loop": {"epochs": 1},
}


class Place:
    """A cohort, a run, embeddings and an index, made once."""

    def __init__(self, path: Path, make_cohort: Callable[..., Cohort]) -> None:
        self.path = path
        self.make = make_cohort
        self.cohort = make_cohort(path / "cohort", subjects=8).path
        self.recipe = path / "tiny.yaml"
        self.recipe.write_text(yaml.safe_dump(RECIPE, sort_keys=False))
        self.run = path / "run"
        self.embeddings, self.index = path / "embeddings", path / "index"
        assert main(["pretrain", str(self.recipe), "--data", str(self.cohort), "--out", str(self.run)]) == 0
        assert main(["embed", str(self.run), str(self.cohort), str(self.embeddings)]) == 0
        assert main(["index", str(self.embeddings), str(self.index)]) == 0


@pytest.fixture(scope="module")
def place(make_cohort: Callable[..., Cohort], tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("cli"), make_cohort)


def fails(capsys: pytest.CaptureFixture[str], words: list[object], *parts: str) -> None:
    """The command ends with 2 and one line on standard error that holds `parts`."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    message = [line for line in error.splitlines() if line.startswith("error: ")]
    assert len(message) == 1, error
    assert "Traceback" not in error
    for part in parts:
        assert part in message[0], message[0]


def test_the_whole_path(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["query", str(place.index), "--row", "0", "--from", "course", "--to", "map", "-k", "3"]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) == 4
    assert main(["query", str(place.index), "--row", "0", "--from", "course", "--to", "map", "--where", "site==A"]) == 0
    assert " B " not in capsys.readouterr().out
    out = tmp_path / "results"
    words = ["probe", str(place.embeddings), "--target", "state", "--out", str(out), "--permutations", "20", "--column", "map"]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "PCA + logistic" in text
    assert "subjects" in text
    assert main(["report", str(out)]) == 0
    assert main(["report", str(place.run)]) == 0
    assert (place.run / "report.html").is_file()
    assert main(["retrieve", str(place.embeddings)]) == 0
    assert "chance" in capsys.readouterr().out
    assert main(["identify", str(place.embeddings)]) == 0
    assert "FNC" in capsys.readouterr().out


def test_recipes_are_listed_and_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "list"]) == 0
    assert all(path.stem in capsys.readouterr().out for path in recipes()[:1])
    assert main(["recipes", "copy", "rest_ica", "--to", str(tmp_path)]) == 0
    assert (tmp_path / "rest_ica.yaml").is_file()
    fails(capsys, ["recipes", "copy", "rest_ica", "--to", tmp_path], "exists already")
    fails(capsys, ["recipes", "copy", "rest"], "not a shipped recipe")


def save(path: Path, shape: tuple[int, ...], affine: np.ndarray | None = None) -> Path:
    seed = sum(map(ord, path.name))
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32) + 100
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([8.0, 8.0, 8.0, 1.0]) if affine is None else affine), path)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "bids"
    for subject in ("sub-1", "sub-2"):
        bold = save(root / subject / "func" / f"{subject}_task-rest_space-MNI_desc-preproc_bold.nii.gz", (8, 8, 8, 40))
        bold.with_name(bold.name.replace(".nii.gz", ".json")).write_text('{"RepetitionTime": 2.0}')
    save(root / "maps.nii.gz", (8, 8, 8, 3))
    return root


def first_scan(tree: Path) -> Path:
    return next((tree / "sub-1" / "func").glob("*.nii.gz"))


def break_nothing(tree: Path) -> None:
    for scan in tree.glob("sub-*/func/*"):
        scan.unlink()


def break_maps_missing(tree: Path) -> None:
    (tree / "maps.nii.gz").unlink()


def break_maps_3d(tree: Path) -> None:
    save(tree / "maps.nii.gz", (8, 8, 8))


def break_truncated(tree: Path) -> None:
    data = first_scan(tree).read_bytes()
    first_scan(tree).write_bytes(data[: len(data) // 2])


def break_nan(tree: Path) -> None:
    image = nib.load(first_scan(tree))
    values = np.asarray(image.dataobj).copy()
    values[..., 3] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), first_scan(tree))


def break_no_overlap(tree: Path) -> None:
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = 5000
    save(tree / "maps.nii.gz", (8, 8, 8, 3), affine=affine)


def break_one_volume(tree: Path) -> None:
    save(first_scan(tree), (8, 8, 8, 1))


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (break_nothing, "bids"),
        (break_maps_missing, "maps.nii.gz"),
        (break_maps_3d, "maps.nii.gz"),
        (break_truncated, "sub-1"),
        (break_nan, "sub-1"),
        (break_no_overlap, "covers 0% of the mask"),
        (break_one_volume, "sub-1"),
    ],
)
def test_bad_scans(
    tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], part: str
) -> None:
    damage(tree)
    out = tmp_path / "out" / "cohort"
    fails(capsys, ["prepare", "ica", out, "--bids", tree, "--maps", tree / "maps.nii.gz"], part)
    assert not out.exists()
    assert list(out.parent.glob("*")) == [], "nothing visible is left behind"


def test_a_cohort_that_is_none(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "run"
    fails(capsys, ["doctor", tmp_path / "nowhere"], "nowhere")
    fails(capsys, ["doctor", empty], "empty")
    fails(capsys, ["pretrain", place.recipe, "--data", empty, "--out", out], "no prepared cohort")
    fails(
        capsys,
        ["pretrain", place.recipe, "--data", place.make(tmp_path / "single", subjects=1).path, "--out", out],
        "one subject",
    )
    fails(
        capsys,
        ["pretrain", place.recipe, "--data", place.cohort, "--out", out, "--objectives.cross.temprature", "1"],
        "temperature",
    )
    fails(capsys, ["pretrain", "rest_icca", "--data", place.cohort, "--out", out], "did you mean 'rest_ica'")
    fails(capsys, ["pretrain", tmp_path / "no.yaml", "--data", place.cohort, "--out", out], "no.yaml: no such recipe")
    fails(capsys, ["pretrain", "--tinny"], "did you mean 'tiny'")
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "parts", "adapt"),
    [
        ({"tr": 1.0}, ("course.tr", "2 s", "1 s", "--adapt tr"), "tr"),
        ({"side": 18}, ("map.mask", "--adapt mask"), "mask"),
    ],
)
def test_a_checkpoint_of_another_grid_or_tr(
    place: Place,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any],
    parts: tuple[str, ...],
    adapt: str,
) -> None:
    other = place.make(tmp_path / "other", subjects=3, name="other", seed=5, **changes).path
    fails(capsys, ["embed", place.run, other, tmp_path / "embeddings"], *parts)
    assert not (tmp_path / "embeddings").exists()
    assert main(["embed", str(place.run), str(other), str(tmp_path / "embeddings"), "--adapt", adapt]) == 0


def test_a_checkpoint_of_another_template(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = place.make(tmp_path / "other", subjects=3, name="other", seed=5).path
    record = json.loads((other / "cohort.json").read_text())
    record["contract"]["map"]["template_sha256"] = "f" * 64
    (other / "cohort.json").write_text(json.dumps(record))
    fails(capsys, ["embed", place.run, other, tmp_path / "embeddings"], "template")


def test_damaged_embeddings_and_indexes(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    cut = tmp_path / "cut"
    shutil.copytree(place.embeddings, cut)
    data = (cut / "samples.parquet").read_bytes()
    (cut / "samples.parquet").write_bytes(data[: len(data) // 2])
    fails(capsys, ["probe", cut, "--target", "state", "--out", tmp_path / "results"], "samples.parquet", "cut short")
    fails(capsys, ["index", cut, tmp_path / "index"], "samples.parquet")
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "index").exists()
    broken = tmp_path / "broken"
    shutil.copytree(place.index, broken)
    for file in broken.glob("*.faiss"):
        flipped = bytearray(file.read_bytes())
        flipped[len(flipped) // 2] ^= 1
        file.write_bytes(bytes(flipped))
    fails(capsys, ["query", broken, "--row", "0"], ".faiss")


def test_an_index_of_another_encoder(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", str(place.recipe), "--data", str(place.cohort), "--out", str(tmp_path / "run"), "--seed", "1"]
    assert main(words) == 0
    assert main(["embed", str(tmp_path / "run"), str(place.cohort), str(tmp_path / "embeddings")]) == 0
    fails(capsys, ["query", place.index, "--like", tmp_path / "embeddings"], "encoder")
    fails(capsys, ["identify", place.embeddings, tmp_path / "embeddings"], "another encoder")


def test_a_probe_that_would_test_seen_subjects_stops(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen_all = ["--split.holdout", "0", "--split.validation", "0"]
    assert main(["pretrain", str(place.recipe), "--data", str(place.cohort), "--out", str(tmp_path / "run"), *seen_all]) == 0
    assert main(["embed", str(tmp_path / "run"), str(place.cohort), str(tmp_path / "embeddings")]) == 0
    words = ["probe", tmp_path / "embeddings", "--target", "state", "--out", tmp_path / "results", "--permutations", "20"]
    fails(capsys, words, "8 of 8", "sub-0", "--allow-overlap")
    assert main([*map(str, words), "--allow-overlap", "--no-baselines"]) == 0
    assert "overlap: 8 of 8" in capsys.readouterr().out


def test_help_answers_without_loading_torch() -> None:
    code = """
import sys
from ssl4neuro.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
assert not {"torch", "nilearn", "sklearn", "pandas"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "prepare" in done.stdout


def test_every_help_page_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["doctor"], ["prepare", "ica"], ["prepare", "courses"], ["simulate", "ica"], ["embed"], ["probe"], ["query"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--help"])
        assert ended.value.code == 0
    assert main(["pretrain", "--help"]) == 0
    assert "--optimiser.rate: float" in capsys.readouterr().out
