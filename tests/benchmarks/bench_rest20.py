"""rest20 end to end: pretraining speed, identification and retrieval of unseen people, beside their baselines.

    python tests/benchmarks/bench_rest20.py [--work DIR] [-- --loop.epochs 200 ...]

Five encoders are trained, so that each of the 20 subjects is held out once. Identification: the two halves of every held-out
scan are prepared as scans of their own; in each fold the gallery holds the 4 held-out subjects (chance
25 %). FNC and raw maps are compared in the same folds.
"""

import argparse
import json
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np

from ssl4neuro.config import load
from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.embeddings import Embeddings
from ssl4neuro.data.prepare import prepare_ica
from ssl4neuro.evaluate.embed import embed
from ssl4neuro.evaluate.identification import identify, scan_vectors
from ssl4neuro.evaluate.retrieval_metrics import retrieval
from ssl4neuro.shipped import find_recipe
from ssl4neuro.train.pretrain import PretrainConfig, pretrain

FOLDS = 5


def halves(source: Path, out: Path) -> list[Path]:
    """Two BIDS trees with the first and the second half of every scan."""
    trees = [out / "first", out / "second"]
    for bold in sorted(source.glob("sub-*/func/*_bold.nii.gz")):
        image = nib.load(bold)
        middle = image.shape[3] // 2
        for tree, part in zip(trees, (slice(0, middle), slice(middle, 2 * middle)), strict=True):
            folder = tree / bold.parent.relative_to(source)
            folder.mkdir(parents=True, exist_ok=True)
            nib.save(image.slicer[..., part], folder / bold.name)
            sidecar = bold.with_name(bold.name.replace(".nii.gz", ".json"))
            (folder / sidecar.name).write_text(sidecar.read_text())
    return trees


def prepare(out: Path, bids: Path, source: Path) -> Cohort:
    """The cohort of one tree."""
    return prepare_ica(
        out, bids=bids, maps=source / "neuromark53_maps.nii.gz", mask=source / "mask.nii.gz",
        networks=source / "neuromark53_networks.tsv", name="rest20",
    )  # fmt: skip


def fold_vectors(run: Path, cohorts: list[Cohort], work: Path) -> tuple[list[Embeddings], set[str]]:
    """Embeddings of both halves by one fold's encoder, and the subjects it has not seen."""
    opened = []
    for number, cohort in enumerate(cohorts):
        out = work / f"{run.name}-{number}"
        if not out.exists():
            embed(run, cohort.path, out)
        opened.append(Embeddings.open(out))
    return opened, set(json.loads((run / "split.json").read_text())["holdout"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data" / "rest20")
    parser.add_argument("--work", type=Path, default=None, help="keep cohorts and runs here; an interrupted run continues")
    parser.add_argument("flags", nargs="*", help="recipe overrides, after --")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="rest20-"))
    cohort = prepare(work / "cohort", options.data, options.data)
    if not (work / "second").exists():
        halves(options.data, work)
    parts = [prepare(work / f"cohort-{tree}", work / tree, options.data) for tree in ("first", "second")]
    flags = ["--data", str(cohort.path), "--out", str(work / "run"), "--crossfit", str(FOLDS), *options.flags]
    pretrain(load(PretrainConfig, find_recipe("rest_ica"), [*flags, *(["--resume"] if (work / "run").exists() else [])]))
    summaries = [json.loads((work / "run" / f"fold-{k}" / "summary.json").read_text()) for k in range(FOLDS)]
    speed, wait = (np.mean([s[key] for s in summaries]) for key in ("samples_per_s", "data_wait"))
    print(
        f"pretraining: {speed:.1f} samples/s, data wait {wait:.2%}, {np.mean([s['seconds'] for s in summaries]):.0f} s a fold"
    )

    identified: dict[str, list[np.ndarray]] = {}
    pairs: dict[str, list[np.ndarray]] = {"course": [], "map": []}
    people, rows, galleries, scans = [], [], [], []
    for k in range(FOLDS):
        (first, second), held = fold_vectors(work / "run" / f"fold-{k}", parts, work)
        chosen = first.table("session")["subject"].isin(held).to_numpy()
        assert not first.table("session")["seen"].to_numpy()[chosen].any()
        for column in (c for c in first.columns if not c.endswith("_projected")):
            values = np.stack([e.matrix("session", column)[chosen] for e in (first, second)])
            identified.setdefault(f"session embedding, {column}", []).append(values)
        for name, kind in (("FNC", "fnc"), ("raw maps", "maps")):
            values = np.stack([scan_vectors(part, kind)[0][chosen] for part in parts])  # type: ignore[arg-type]
            identified.setdefault(name, []).append(values)
        people += first.table("session")["subject"][chosen].tolist()
        galleries += [k] * int(chosen.sum())
        sample = first.table("sample")["subject"].isin(held).to_numpy()
        for modality in pairs:
            pairs[modality].append(first.matrix("sample", f"{modality}_projected")[sample])
        rows += first.table("sample")["subject"][sample].tolist()
        scans += [f"{k}-{s}" for s in first.table("sample")["subject"][sample]]
    print(f"identification of people unseen by the encoder, {FOLDS} folds:")
    for name, folds in identified.items():
        a, b = np.concatenate(folds, axis=1)
        print(f"  {name:28} {identify(a, b, np.array(people), galleries=np.array(galleries))}")
    groups = np.unique(scans, return_inverse=True)[1]
    fold_of_row = np.array([int(s.split("-")[0]) for s in scans])
    for label, gallery in (("within the scan", groups), ("among the fold's scans", fold_of_row)):
        found = retrieval(
            np.concatenate(pairs["course"]),
            np.concatenate(pairs["map"]),
            np.array(rows),
            groups=gallery,
            direction="course to map",
        )
        print(f"cross-modal retrieval {label}:")
        for metric in found:
            print(f"  {metric}")


if __name__ == "__main__":
    main()
