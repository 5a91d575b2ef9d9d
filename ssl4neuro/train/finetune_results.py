"""What the trainings of a run found on held-out subjects, pooled: tables, figures and pictures, failures first."""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open

from ssl4neuro.config import to_mapping
from ssl4neuro.data.animation import write_gif
from ssl4neuro.data.clip_cohort import ClipCohort
from ssl4neuro.data.splits import Split
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.held_out import truth_codes
from ssl4neuro.evaluate.overlays import Case, animate_case, draw_case, failures_first
from ssl4neuro.evaluate.segmentation import SegmentationRow, summarise
from ssl4neuro.evaluate.segmentation_compare import compare
from ssl4neuro.evaluate.segmentation_compare import render as render_comparison
from ssl4neuro.evaluate.segmentation_results import read_scans, render, write_segmentation_results
from ssl4neuro.heads.model import SegmentationConfig
from ssl4neuro.train.finetune_config import FinetuneConfig

SCANS, TEST_MASKS, RESULTS, OVERLAYS = "scans.tsv", "test.safetensors", "results", "overlays"
NUMBERS = ("value", "ci_low", "ci_high")


def write_results(config: FinetuneConfig, cohort: ClipCohort, trainings: Sequence[tuple[Path, Split]], stamp: str) -> Path:
    """RUN/results from the folders of the trainings, in the place of older ones.

    Args:
        trainings: folder of each training, and whom it trained and tested on.
        stamp: said of every number, e.g. that subjects were seen in pretraining.
    """
    scans = pd.concat([read_scans(folder) for folder, _ in trainings], ignore_index=True)
    rows = summarise(scans, lesion=config.lesion, seed=config.seed)
    out = Path(config.out) / RESULTS
    settings = {
        "head": config.head.name, "cohort": cohort.name, "init": Path(config.init).name, "folds": config.folds,
        "patients": list(config.patients), "lesion": config.lesion, "clip": to_mapping(config.clip), "still": config.still,
        "tta": config.tta, "postprocess": to_mapping(config.postprocess), "seed": config.seed,
        "trained_on": sorted({len(split.train) for _, split in trainings}),
        "validated_on": sorted({len(split.validation) for _, split in trainings}),
    }  # fmt: skip
    write_segmentation_results(out, scans, rows, record={"settings": settings, "notes": [], "stamp": stamp})
    if config.overlays:
        folders = [folder for folder, _ in trainings]
        draw_overlays(
            out / OVERLAYS, cohort, config.segmentation({}), own_scans(scans, config.head.name), folders, config.overlays
        )
    return out


def own_scans(scans: pd.DataFrame, head: str) -> pd.DataFrame:
    """Those of the head itself, not of baselines and variants; in few-label runs of the one that was trained on most."""
    own = scans[~scans["baseline"].astype(bool)]
    mine = own[own["model"].str.partition(",")[0] == head]
    mine = own if mine.empty else mine
    return mine[mine["model"] == mine["model"].iloc[-1]]


def draw_overlays(
    out: Path,
    cohort: ClipCohort,
    segmentation: SegmentationConfig,
    scans: pd.DataFrame,
    folders: Sequence[Path],
    most: int,
) -> None:
    """At most so many test cases as PNG, failures first, and the first of each kind as animated GIF, with index.tsv."""
    out.mkdir(parents=True, exist_ok=True)
    structure = segmentation.lesion or next(iter(segmentation.codes))
    order = failures_first(scans, structure, most=most)
    lines: list[dict[str, Any]] = []
    animated: set[str] = set()
    for number, row in enumerate(order.to_dict("records"), start=1):
        case = _case(cohort, segmentation, row, folders)
        if case is None:
            continue
        file = draw_case(case, out / f"{number:02d}.png")
        kind = str(row["why"]).split(":")[0].split(",")[0]
        line = {"file": file.name, "why": row["why"], "animation": "", "note": case.note}
        line |= {key: row[key] for key in ("subject", "session", "slice", "frame")}
        if kind not in animated and len(case.frames) > 1:
            animated.add(kind)
            seconds = case.interval if np.isfinite(case.interval) else 0.05
            write_gif(animate_case(case), out / f"{number:02d}.gif", max(seconds, 0.04))
            line["animation"] = f"{number:02d}.gif"
        lines.append(line)
    columns = ["file", "why", "animation", "note", "subject", "session", "slice", "frame"]
    pd.DataFrame(lines, columns=columns).to_csv(out / "index.tsv", sep="\t", index=False)


def _case(cohort: ClipCohort, segmentation: SegmentationConfig, row: Mapping[Any, Any], folders: Sequence[Path]) -> Case | None:
    number, frame = int(row["row"]), int(row["frame"])
    key = f"{number}-{frame}"
    for folder in reversed(folders):
        if folder.name.startswith("fold-") and folder.name != f"fold-{int(row['fold'])}":
            continue
        with safe_open(folder / TEST_MASKS, "numpy") as stored:
            if f"predicted/{key}" in stored.keys():  # noqa: SIM118 (no mapping)
                predicted, doubt = (stored.get_tensor(f"{what}/{key}") for what in ("predicted", "uncertainty"))
                break
    else:
        print(f"note: {folders[0]}: no mask of row {number}, frame {frame} was kept; it is not drawn", file=sys.stderr)
        return None
    clip, line = cohort.clip(number), cohort.index.iloc[number]
    distance = "" if not np.isfinite(row["hd95"]) else f", HD95 {row['hd95']:.1f} {'mm' if clip.spacing else 'px'}"
    overlap = "no reference lesion" if not np.isfinite(row["dice"]) else f"{row['structure']} Dice {row['dice']:.2f}"
    name = " ".join(part for part in (row["subject"], row["session"], row["phase"]) if part)
    return Case(
        title=f"{name}, slice {int(row['slice'])}: {row['why']}",
        frames=clip.frames,
        frame=frame,
        predicted=predicted,
        truth=truth_codes(cohort, segmentation, number, frame),
        uncertainty=doubt.astype(np.float32),
        classes=segmentation.names,
        interval=float(line["interval"]),
        note=f"{overlap}{distance}",
        spacing=clip.spacing,
    )


def render_results(run: Path) -> str:
    """The pooled table of a run, for the terminal.

    Raises:
        UserError: no results there.
    """
    file = run / RESULTS / "results.json"
    if not file.is_file():
        raise UserError(f"{run}: no results here ({RESULTS}/results.json is missing); finish the run with --resume")
    record = json.loads(file.read_text(encoding="utf-8"))
    rows = []
    for line in record["rows"]:
        known: dict[str, Any] = {k: math.nan if v is None and k in NUMBERS else v for k, v in line.items()}
        rows.append(SegmentationRow(**known))
    stamp = [f"STAMP {record['stamp']}"] if record.get("stamp") else []
    return "\n".join([*stamp, render(rows)])


def compare_runs(first: Path, second: Path, *, structure: str | None = None, metric: str = "dice", seed: int = 0) -> str:
    """Paired tests between the heads of two runs on the test subjects that both have, one block per structure.

    Raises:
        UserError: a run without results, an unknown structure, or runs that were tested on other scans.
    """
    tables: list[pd.DataFrame] = []
    stamps: list[str] = []
    for run in (first, second):
        scans = read_scans(Path(run) / RESULTS)
        record = json.loads((Path(run) / RESULTS / "results.json").read_text(encoding="utf-8"))
        own = own_scans(scans, str(record["settings"].get("head", "")))
        stamps += [f"STAMP {Path(run).name}: {record['stamp']}"] if record["stamp"] else []
        tables.append(own.assign(model=f"{own['model'].iloc[0]} ({Path(run).name})"))
    names = [structure] if structure else list(tables[0]["structure"].unique())
    blocks = [render_comparison(compare(*tables, structure=name, metric=metric, seed=seed)) for name in names]
    return "\n\n".join([*stamps, *blocks])
