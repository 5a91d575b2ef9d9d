"""Segment a cohort with a fine-tuned head: masks on the grid of their sources, how sure they are, and tables of what was found.

It is no test. Where the cohort has masks the table also says how well they agree, subjects seen in training included, and
marked as such.
"""

import json
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from jaxtyping import UInt8

from ssl4neuro import contract
from ssl4neuro.atomic import new_folder
from ssl4neuro.config import to_mapping
from ssl4neuro.data.animation import write_gif
from ssl4neuro.data.clip import Clip
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.cohort import RECORD, Cohort
from ssl4neuro.data.mask_files import Maps, SourceImage, source_images, write_masks
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate import segmentation
from ssl4neuro.evaluate.embed import clip_config
from ssl4neuro.evaluate.held_out import truth_codes
from ssl4neuro.evaluate.overlays import Case, animate_case, draw_case
from ssl4neuro.evaluate.postprocess import postprocess
from ssl4neuro.evaluate.segment import Picture, Segmenter, load_segmenters, segment
from ssl4neuro.evaluate.segmentation_scores import score_scan
from ssl4neuro.heads.model import IGNORED
from ssl4neuro.manifest import file_sha256
from ssl4neuro.progress import progress

FORMAT, VERSION = "ssl4neuro predictions", 1
FOUND = ("detected", "area", "score", "uncertainty")  # of what `score_scan` returns: those that need no mask to compare with
AGREEMENT = ("positive", "area_true", "dice", "jaccard", "precision", "recall", "hd95", "hsd")
FRAME_S = 0.04  # of an animation where the interval is unknown
GIF_COLOURS = 64  # half the size of the full palette, and the lines stay what they are
PACKAGES = ("ssl4neuro", "torch", "monai", "numpy", "scipy", "nibabel")

Frames = Literal["labelled", "first", "all"]
Lines = list[dict[str, Any]]


def predict(
    run: str | Path,
    cohort: str | Path,
    out: str | Path,
    *,
    which: Literal["best", "last"] = "best",
    adapt: Collection[str] = (),
    frames: Frames = "labelled",
    tta: bool = False,
    batch: int = 8,
    overlays: bool = True,
) -> Path:
    """Write masks, uncertainty and the lesion's probability (NIfTI), scans.tsv, patients.tsv, predict.json and overlays.

    Args:
        run: run of `finetune` or a checkpoint of one; the models of its folds are averaged.
        cohort: prepared clips; checked against the checkpoint's contract.
        out: folder to create.
        which: best or last checkpoint.
        adapt: differences to bridge although that is not exact: see `contract.ADAPTATIONS`.
        frames: those that have a mask (of a clip without, the first), the first of every clip, or all.
        tta: also segment mirrored clips and average.
        batch: clips at a time.
        overlays: draw the most telling frame of every image, too.

    Raises:
        UserError: the run has no head for segmentation, the cohort does not meet the contract, `out` exists, or a file is
            damaged.
    """
    out, state = Path(out), Accelerator()
    _check(out, batch, state.num_processes)
    opened = _open(cohort)
    segmenters = load_segmenters(run, which, state.device)
    saved = segmenters[0].checkpoint
    changes = contract.enforce(saved.contract, opened.info["contract"], adapt=adapt, where=str(opened.path))
    clip = clip_config(saved.contract)
    if clip is None:
        raise UserError(f"{saved.path}: does not say how its clips were cut; fine-tune again with this version")
    contents = opened.content_hashes()
    seen = {name for one in segmenters for name in one.checkpoint.manifest.overlap(opened.name, contents)}
    images = source_images(opened)
    notes = [note for one in segmenters for note in one.checkpoint.notes]
    notes += [f"note: {text}" for text in (*changes, *_notes(opened, images, seen))]
    for note in notes:
        state.print(note)
    chosen = {row: _chosen(opened.clip(row), frames) for image in images for row in image.rows}
    samples = [(row, frame) for image in images for row in image.rows for frame in chosen[row]]
    pictures = segment(
        [one.model for one in segmenters], opened, samples, clip, state.device,
        tta=tta, batch=batch, still=saved.config.get("still") is True,
    )  # fmt: skip
    writer = _Writer(opened, segmenters[0], frozenset(seen), overlays)
    lines: Lines = []
    with torch.no_grad(), new_folder(out) as folder, progress("segment", len(images), "image") as bar:
        for image in images:
            lines += writer.write(folder, image, {row: chosen[row] for row in image.rows}, pictures)
            bar.advance(image=image.name)
        scans = pd.DataFrame(lines)
        for name, table in (("scans.tsv", scans), ("patients.tsv", patients(scans))):
            table.to_csv(folder / name, sep="\t", index=False, na_rep="n/a")
        settings = {"which": which, "frames": frames, "tta": tta, "adapt": sorted(adapt)}
        record = {**_record(opened, segmenters, run), "settings": settings, "notes": notes, "seen": len(seen)}
        (folder / "predict.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return out


def patients(scans: pd.DataFrame) -> pd.DataFrame:
    """A line per subject, session, run, view, frame and structure.

    `scans` that were segmented; `volume` in `volume_unit` (ml; cm2, areas added, where the distance of slices is unknown; px
    where the spacing is), clips of the same slice averaged; `score`, the highest of the scans; `detected` in any of them.
    """
    found = segmentation.patients(
        scans.assign(model="", baseline=False, phase=scans["frame"], positive=False, tp=0, fp=scans["pixels"], fn=0)
    )
    found["seen"] = found["subject"].isin(scans.loc[scans["seen"], "subject"])
    place = [*segmentation.STACK, "frame", "seen", "structure"]
    return found.rename(columns={"phase": "frame"})[[*place, "scans", "volume", "volume_unit", "score", "detected"]]


@dataclass(frozen=True)
class _Writer:
    """Writes what was found on one image after the other, and keeps nothing of it but lines of the table."""

    cohort: ClipCohort
    segmenter: Segmenter
    seen: frozenset[str]
    overlays: bool

    def write(
        self, folder: Path, image: SourceImage, chosen: Mapping[int, Sequence[int]], pictures: Iterator[Picture]
    ) -> Lines:
        """Files of one image, and its lines of scans.tsv. Takes the pictures of the `chosen` frames and no more."""
        config, after = self.segmenter.config, self.segmenter.postprocess
        frames = sorted({frame for own in chosen.values() for frame in own})
        size = self.cohort.clip(image.rows[0]).frames.shape[1:3]
        masks = np.zeros((len(image.rows), len(frames), *size), dtype=np.uint8)
        doubt, lesion = (np.zeros(masks.shape, dtype=np.float32) for _ in range(2))
        values = np.array([0, *config.classes.values()], dtype=np.uint8)
        lines: Lines = []
        best, case = (-1.0, -1.0), None
        for picture in islice(pictures, sum(map(len, chosen.values()))):
            self._check(picture)
            codes = postprocess(picture.probabilities, after, config.codes, config.lesion, image.spacing)
            place = image.rows.index(picture.row), frames.index(picture.frame)
            masks[place], doubt[place] = values[codes], picture.uncertainty
            if config.lesion is not None:
                lesion[place] = picture.probabilities[list(config.codes[config.lesion])].sum(0)
            own = self._lines(image, picture, codes)
            lines += own
            if self.overlays and _weight(own, config.lesion) > best:
                best, case = _weight(own, config.lesion), self._case(image, picture, codes, own)
        _save(folder, image, "mask", masks)
        _save(folder, image, "uncertainty", doubt)
        if config.lesion is not None:
            _save(folder, image, f"probability-{config.lesion}", lesion)
        sidecar = {"Frames": frames, "Labels": {"background": 0, **config.classes}}  # `Frames` as `prepare clips` reads it
        (folder / f"{image.name}_mask.json").write_text(json.dumps(sidecar) + "\n", encoding="utf-8")
        if case is not None:
            _draw(folder / "overlays" / image.name, case)
        return lines

    def _check(self, picture: Picture) -> None:
        if not (np.isfinite(picture.probabilities).all() and np.isfinite(picture.uncertainty).all()):
            line = self.cohort.index.iloc[picture.row]
            raise UserError(
                f"{self.cohort.path}: the answer for row {picture.row} ({line['subject']} {line['session']}) is not finite; "
                "check the scan with `ssl4neuro doctor`, or the run's log for diverging losses"
            )

    def _lines(self, image: SourceImage, picture: Picture, codes: UInt8[np.ndarray, "height width"]) -> Lines:
        config = self.segmenter.config
        line = self.cohort.index.iloc[picture.row]
        identity = {"row": picture.row, **{key: line[key] for key in (*segmentation.STACK, "slice")}, "frame": picture.frame}
        place = {
            "seen": line["subject"] in self.seen,
            "file": image.name,
            "grid": "picture" if image.affine is None else "source",
        }
        place |= {key: float(line[key]) for key in ("spacing_row", "spacing_column", "thickness")}
        truth = truth_codes(self.cohort, config, picture.row, picture.frame)
        given = (picture.probabilities, config.codes, image.spacing, picture.uncertainty)
        found = score_scan(codes, np.zeros_like(codes), *given)
        agreement: Sequence[Mapping[str, Any]] = [{}] * len(found) if truth is None else score_scan(codes, truth, *given)
        return [
            {
                **identity, **place, "structure": own["structure"], "pixels": own["tp"] + own["fp"],
                **{key: own[key] for key in FOUND}, "area_unit": "px" if image.spacing is None else "mm2",
                **{key: other.get(key) for key in AGREEMENT},
            }
            for own, other in zip(found, agreement, strict=True)
        ]  # fmt: skip

    def _case(self, image: SourceImage, picture: Picture, codes: UInt8[np.ndarray, "height width"], lines: Lines) -> Case:
        clip, line = self.cohort.clip(picture.row), self.cohort.index.iloc[picture.row]
        truth = truth_codes(self.cohort, self.segmenter.config, picture.row, picture.frame)
        if truth is not None:
            truth = np.where(truth == IGNORED, 0, truth).astype(np.uint8)
        dice = [f"{own['structure']} Dice {own['dice']:.2f}" for own in lines if own["dice"] is not None and own["dice"] >= 0]
        seen = ["seen in training"] if line["subject"] in self.seen else []
        where = f", slice {line['slice']}" if line["slice"] >= 0 else ""
        return Case(
            f"{image.name}{where}", clip.frames, picture.frame, codes, truth, picture.uncertainty,
            self.segmenter.config.names, float(line["interval"]), ", ".join([*dice, *seen]), image.spacing,
        )  # fmt: skip


def _check(out: Path, batch: int, processes: int) -> None:
    if out.exists():
        raise UserError(f"{out}: exists already; name another output folder or delete it")
    if batch < 1:
        raise UserError(f"--batch {batch}: at least one clip at a time is needed")
    if processes > 1:
        raise UserError("predict: runs in one process; start it without `accelerate launch` or `torchrun`")


def _open(path: str | Path) -> ClipCohort:
    opened = Cohort.open(path)
    if not isinstance(opened, ClipCohort):
        raise UserError(
            f"{path}: a cohort of kind '{opened.kind}'; a head for segmentation needs one of `ssl4neuro prepare clips`"
        )
    if not len(opened):
        raise UserError(f"{path}: holds no clips; prepare a cohort that has some")
    return opened


def _chosen(clip: Clip, frames: Frames) -> list[int]:
    if frames == "all":
        return list(range(len(clip.frames)))
    labelled = [] if frames == "first" or clip.mask_frames is None else sorted({int(frame) for frame in clip.mask_frames})
    return labelled or [0]


def _notes(cohort: ClipCohort, images: Sequence[SourceImage], seen: Collection[str]) -> list[str]:
    """What limits the use of the results."""
    notes, people = [], cohort.index["subject"].nunique()
    if seen:
        notes.append(
            f"{len(seen)} of {people} subjects were seen in training (column `seen`); what is found on them is no test"
        )
    lost = sum(image.affine is None for image in images)
    if lost:
        notes.append(
            f"where {lost} of {len(images)} images lie is not known; their masks have the axes of the picture (column `grid`)"
        )
    flat = sum(image.spacing is None for image in images)
    if flat:
        notes.append(f"the pixel spacing of {flat} of {len(images)} images is not known; their areas and volumes are in pixels")
    return notes


def _weight(lines: Lines, lesion: str | None) -> tuple[float, float]:
    """How telling a frame is: the area of the lesion, else its score; of all structures where there is no lesion."""
    own = [line for line in lines if lesion is None or line["structure"] == lesion]
    return sum(line["area"] for line in own), max(line["score"] for line in own)


def _save(folder: Path, image: SourceImage, what: str, maps: Maps) -> None:
    write_masks(
        folder, f"{image.name}_{what}", maps, image.places,
        slices=image.slices, affine=image.affine, spacing=image.spacing, thickness=image.thickness,
    )  # fmt: skip


def _draw(path: Path, case: Case) -> None:
    """NAME.png, and NAME.gif of a clip that moves."""
    draw_case(case, path.with_name(f"{path.name}.png"))
    if len(case.frames) > 1:
        interval = case.interval if case.interval > 0 else FRAME_S
        write_gif(animate_case(case), path.with_name(f"{path.name}.gif"), interval, colours=GIF_COLOURS)


def _record(cohort: ClipCohort, segmenters: Sequence[Segmenter], run: str | Path) -> dict[str, Any]:
    first, versions = segmenters[0], {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "format": FORMAT,
        "version": VERSION,
        "run": str(run),
        "checkpoints": [{"step": one.checkpoint.step, "sha256": one.checkpoint.checkpoint_sha256} for one in segmenters],
        "contract": first.checkpoint.contract,
        "cohort": str(cohort.path),
        "name": cohort.name,
        "cohort_sha256": file_sha256(cohort.path / RECORD),
        "subjects": int(cohort.index["subject"].nunique()),
        "classes": first.config.classes,
        "structures": {name: [first.config.names[code] for code in codes] for name, codes in first.config.codes.items()},
        "lesion": first.config.lesion,
        "postprocess": to_mapping(first.postprocess),
        "versions": versions,
    }
