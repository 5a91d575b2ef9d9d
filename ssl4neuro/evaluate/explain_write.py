"""The folder of an explanation: explain.json, tables, maps/*.nii.gz and figures/*, there whole or not at all."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssl4neuro.atomic import new_folder
from ssl4neuro.data.brain_plots import draw_brain, write_map
from ssl4neuro.data.mask_files import safe_name
from ssl4neuro.evaluate.explain import Result
from ssl4neuro.evaluate.explain_figures import TOP, bars_figure, clips_figure, courses_figure
from ssl4neuro.evaluate.explain_inputs import Inputs
from ssl4neuro.evaluate.explain_model import Explanation
from ssl4neuro.evaluate.explain_parts import BAND, PATCH, PHASE, REGION, TABLES
from ssl4neuro.evaluate.explain_summary import mean_cams
from ssl4neuro.evaluate.explain_target import EVERY
from ssl4neuro.progress import progress

FORMAT, VERSION = "ssl4neuro explanation", 1
EXAMPLES = 4  # courses or clips shown one by one
METHOD = {
    "eigencam": (
        "Eigen-CAM: projection of the encoder's features at every position on their first right singular vector, not centred,"
        " its sign such that strong features are positive, linearly upsampled, 0 to 1 within a sample (Muhammad & Yeasin,"
        " 2020)."
        " It shows what dominates the features, not what an answer rests on."
    ),
    "occlusion": (
        "Occlusion (Zeiler & Fergus, 2014): {fill} {score} Values are means over unseen subjects,"
        " classes counting alike, with 95 % intervals by bootstrap of subjects, each part by itself;"
        " p_corrected is the sign-flip test's over all parts of a network, where subjects have every class."
    ),
    "sanity": (
        "Sanity check: the same with all weights drawn anew{refit} (Adebayo et al., 2018); an explanation whose rank"
        " correlation with that exceeds 0.9 does not depend on the training."
    ),
}
SCORE = "fall of the score of the right answer (SD)"
CHANGE = "1 - cosine of the embeddings"


def write_explanation(result: Result, inputs: Inputs, out: Path) -> Path:
    """Write the folder.

    Raises:
        UserError: `out` exists or cannot be written.
    """
    with new_folder(out) as folder:
        for name, table in result.tables.items():
            table.to_csv(folder / f"{name}.tsv", sep="\t", index=False, na_rep="n/a", float_format="%.6g")
        (folder / "maps").mkdir()
        (folder / "figures").mkdir()
        maps: list[dict[str, str]] = []
        figures: list[dict[str, Any]] = []
        jobs = list(_jobs(result, inputs, folder, maps, figures))
        with progress("draw", len(jobs), "figure") as bar:
            for job in jobs:
                job()
                bar.advance()
        if not maps:
            (folder / "maps").rmdir()
        record = json.dumps(_record(result, maps, figures), indent=1, allow_nan=False)
        (folder / "explain.json").write_text(record + "\n", encoding="utf-8")
    return out


def render(result: Result) -> str:
    """What was found, for the terminal: how good the probes are, the largest parts, and the warnings."""
    people = len(np.unique(result.rows.subjects))
    what = f"'{result.question.target}'" if result.question.target else "the embedding"
    lines = [f"explanation of {what} in {people} unseen subjects, {len(result.rows.subjects)} samples", ""]
    if "probes" in result.tables:
        for row in result.tables["probes"].to_dict("records"):
            where = f"{row['modality']}, {row['network']}"
            lines.append(
                f"  probe on {where}: {row['metric']} {row['value']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})"
            )
        lines.append("")
    for kind, name in TABLES.items():
        if name not in result.tables:
            continue
        lines.append(f"largest change by {kind}:")
        for (modality, group), table in result.tables[name].groupby(["modality", "network"], sort=False):
            best = table.iloc[int(np.nanargmax(table["value"]))]
            interval = f"{best['ci_low']:.3g} to {best['ci_high']:.3g}"
            lines.append(f"  {modality}, {group}: {best[kind]} {best['value']:.3g} ({interval})")
    return "\n".join([*lines, "", *(f"WARNING {text}" for text in result.warnings), *(f"note: {n}" for n in result.notes)])


def _record(result: Result, maps: list[dict[str, str]], figures: list[dict[str, Any]]) -> dict[str, Any]:
    signed = bool(result.answers)
    score = (
        f"The change is the fall of the score of the right answer to '{result.question.target}': a linear probe's logit, in"
        " standard deviations over its training subjects, fitted in folds without the subject that is explained."
        if signed
        else "The change is one minus the cosine of the embeddings with and without the part."
    )
    refit = " and the probes fitted anew" if signed else ""
    fill = "each part of the standardised input set to 0, its mean."
    if REGION in {kind for e in result.found.values() for kind in e.changes} and result.config.fill == "mean":
        fill = (
            "each region of a map replaced by the mean map of the network over training subjects, every other part of the"
            " standardised input set to 0, its mean."
        )
    texts = [METHOD[m].format(score=score, fill=fill) for m in result.methods]
    if "sanity" in result.tables:
        texts.append(METHOD["sanity"].format(refit=refit))
    atlas = [e.parcels.source for e in result.found.values() if e.parcels is not None]
    if atlas:
        texts.append(f"Regions: {atlas[0]}.")
    return {
        "format": FORMAT, "version": VERSION, **result.source, "target": result.question.target,
        "methods": list(result.methods), "n_subjects": len(np.unique(result.rows.subjects)),
        "n_samples": len(result.rows.subjects), "networks": sorted(set(map(str, result.rows.groups))),
        "explained_variance": {m: _finite(float(np.mean(e.share))) for m, e in result.found.items() if e.share is not None},
        "method": " ".join(texts), "warnings": result.warnings, "notes": result.notes,
        "tables": [f"{name}.tsv" for name in result.tables], "maps": maps, "figures": figures,
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _jobs(
    result: Result, inputs: Inputs, folder: Path, maps: list[dict[str, str]], figures: list[dict[str, Any]]
) -> Iterator[Any]:
    """Everything to draw and write, as functions without arguments."""
    draw = _Draw(result, inputs, folder, maps, figures)
    for modality, found in result.found.items():
        for kind in found.changes:
            if kind in (BAND, PHASE, REGION):
                yield lambda modality=modality, kind=kind: draw.bars(modality, kind)
        if found.grid is not None:
            for group in np.unique(result.rows.groups):
                yield lambda found=found, group=str(group): draw.brain(found, group)
        elif found.cams and found.cams[0].ndim == 1:
            yield lambda found=found: draw.courses(found)
        elif found.cams or PATCH in found.changes:
            yield lambda found=found: draw.clips(found)


class _Draw:
    """Draws into the folder and notes what it has drawn, with a caption and a text for those who do not see it."""

    def __init__(
        self, result: Result, inputs: Inputs, folder: Path, maps: list[dict[str, str]], figures: list[dict[str, Any]]
    ) -> None:
        self.result, self.inputs, self.folder, self.maps, self.figures = result, inputs, folder, maps, figures
        self.label = SCORE if result.answers else CHANGE
        self.cams = {m: mean_cams(e, result.rows) for m, e in result.found.items() if e.cams and m != "course"}
        self.about = f"'{result.question.target}'" if result.question.target else "the embedding"

    def bars(self, modality: str, kind: str) -> None:
        """Bands, phases, and the regions with the largest changes."""
        table = self.result.tables[TABLES[kind]]
        table = table[table["modality"] == modality]
        many = kind == REGION
        title = f"{modality}: {self.about} by {kind}" + (f", the {TOP} largest changes" if many else "")
        stem = self.folder / "figures" / safe_name(TABLES[kind], modality)
        names = bars_figure(table, kind, stem, title=title, label=f"{self.label}, 95 % interval", top=TOP if many else None)
        best = table.iloc[int(np.nanargmax(table["value"]))]
        self._note(names, f"{title}. Bars: mean over unseen subjects; lines: 95 % interval.", f"Largest: {best[kind]}.")

    def brain(self, found: Explanation, group: str) -> None:
        """Maps and figures of one network: Eigen-CAM by class and in all, and occlusion."""
        assert found.grid is not None
        people = self._people(group)
        own = "" if group == EVERY else group
        for (network, name), values in self.cams.get(found.modality, {}).items():
            if network != group:
                continue
            self._map(
                values, found, f"Eigen-CAM, mean over {people} unseen subjects", "eigencam", own, "" if name == EVERY else name
            )
            if name == EVERY:
                self._brain(values, found, f"{own or 'all'}: Eigen-CAM", "Eigen-CAM (0 to 1)", people, "eigencam", own)
        if REGION in found.changes and found.parcels is not None:
            table = self.result.tables["regions"]
            table = table[(table["modality"] == found.modality) & (table["network"] == group)]
            by_code = np.zeros(int(found.parcels.labels.max()) + 1)
            by_code[table["code"]] = table["value"].fillna(0)
            values = by_code[found.parcels.labels[found.grid.mask]]
            self._map(values, found, f"{self.label}, mean over {people} unseen subjects", "occlusion", own)
            self._brain(
                values, found, f"{own or 'all'}: occlusion by region, {self.about}", self.label, people, "occlusion", own
            )

    def courses(self, found: Explanation) -> None:
        """A few courses with their Eigen-CAM; courses at rest have no common time over which to average."""
        which = self._examples()
        rows = found.rows[which]
        batch = self.inputs.batch(rows)
        x, valid = batch["inputs"][found.modality][:, 0].cpu().numpy(), batch["valid"][found.modality][:, 0].cpu().numpy()
        courses = [values[real] for values, real in zip(x, valid, strict=True)]
        cams = [found.cams[i] for i in which]
        rates = batch["rate"][found.modality].cpu().tolist()
        stem = self.folder / "figures" / safe_name("eigencam", found.modality)
        names = courses_figure(courses, cams, [self._what(i) for i in which], rates, stem)
        self._note(
            names, f"{found.modality}: Eigen-CAM of single courses of unseen subjects.", "Courses coloured by Eigen-CAM."
        )

    def clips(self, found: Explanation) -> None:
        """A few clips with their Eigen-CAM and patches, and the means over subjects on the mean clip."""
        which = self._examples()
        batch = self.inputs.batch(found.rows[which])
        frames = [clip.mean(0) for clip in batch["inputs"][found.modality][:, 0].cpu().numpy()]
        names = [self._what(i) for i in which]
        if found.cams:
            heat = [found.cams[i] for i in which]
            title = f"{found.modality}: Eigen-CAM of unseen subjects"
            self._clips(frames, heat, names, title, "Eigen-CAM (0 to 1)", "eigencam", found.modality)
        if PATCH not in found.changes:
            return
        people = self._people(None)
        table = self.result.tables["patches"]
        table = table[table["modality"] == found.modality]
        for group, own in table.groupby("network", sort=False):
            picture = np.zeros(frames[0].shape[1:])
            for line in own.itertuples():
                picture[line.top : line.bottom, line.left : line.right] = line.value
            heat = [np.broadcast_to(picture, frame.shape) for frame in frames]
            title = f"{found.modality}: occlusion by patch, {self.about}, mean over {people} unseen subjects, on single clips"
            self._clips(frames, heat, names, title, self.label, "patches", found.modality, "" if group == EVERY else str(group))

    def _clips(self, frames: list[Any], heat: list[Any], names: list[str], title: str, label: str, *stem: str) -> None:
        path = self.folder / "figures" / safe_name(*stem)
        self._note(
            clips_figure(frames, heat, names, path, title=title, label=label), f"{title}.", "Frames with a coloured map."
        )

    def _map(self, values: np.ndarray, found: Explanation, what: str, *stem: str) -> None:
        assert found.grid is not None
        name = f"{safe_name(*stem)}.nii.gz"
        space = "mni" if "mni" in str(self.result.source["contract"]["map"].get("space", "")).lower() else "aligned"
        write_map(self.folder / "maps" / name, values, found.grid, space)
        self.maps.append({"file": f"maps/{name}", "what": what})

    def _brain(self, values: np.ndarray, found: Explanation, title: str, label: str, people: int, *stem: str) -> None:
        assert found.grid is not None
        path = self.folder / "figures" / safe_name(*stem)
        paths = draw_brain(path, values, found.grid, title=f"{title} (n = {people} unseen subjects)", label=label)
        peak = (
            np.argwhere(found.grid.mask)[int(np.abs(values).argmax())] @ found.grid.affine[:3, :3].T + found.grid.affine[:3, 3]
        )
        where = ", ".join(f"{mm:.0f}" for mm in peak)
        self._note([p.name for p in paths], f"{title}, mean over {people} unseen subjects.", f"Largest at ({where}) mm.")

    def _note(self, names: list[str], caption: str, alt: str) -> None:
        self.figures.append({"files": [f"figures/{name}" for name in names], "caption": caption, "alt": f"{caption} {alt}"})

    def _people(self, group: str | None) -> int:
        rows = self.result.rows
        return len(np.unique(rows.subjects if group is None else rows.subjects[rows.groups == group]))

    def _examples(self) -> np.ndarray:
        """The first row of a few subjects, evenly over them."""
        first = pd.Series(np.arange(len(self.result.rows.subjects))).groupby(self.result.rows.subjects).first().to_numpy()
        return first[np.unique(np.linspace(0, len(first) - 1, EXAMPLES).round().astype(int))]

    def _what(self, row: int | np.integer) -> str:
        group, name = str(self.result.rows.groups[row]), str(self.result.rows.classes[row])
        parts = [group] * (group != EVERY) + [f"{self.result.question.target}: {name}"] * (name != EVERY)
        return ", ".join(parts) or "unseen subject"
