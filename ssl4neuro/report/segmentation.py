"""The report of a segmentation head, finished or not: what was asked, the answer beside its baselines, where it fails, how."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ssl4neuro.report.folder import saved_contract
from ssl4neuro.report.log import last, part
from ssl4neuro.report.page import Notice, Page, duration, listed, number, plural
from ssl4neuro.report.run import SLOW_LOADING, contract_table, environment_table
from ssl4neuro.report.segmentation_figures import gallery, interval, result_figures, training_figures
from ssl4neuro.report.segmentation_run import POSITIVES, Row, SegmentationRun, place, read_run, size
from ssl4neuro.report.segmentation_tables import numbers_table, patients_table, results_table, splits_table

FEW_PATIENTS = 30  # below, an interval by bootstrap is itself uncertain and tends to be too narrow
FOLDERS = ("data", "out", "init")
PAPERS = {
    "mvo": "the Spatiotemporal-Sensitive Network of Yu et al. (MICCAI 2025, paper 0219): a static and a motion encoder,"
    " cross-attention from the motion residuals to the static image, and uncertainty-driven refinement",
}


def segmentation_page(path: Path) -> Page:
    """Read whatever the run has left and describe it.

    Args:
        path: run folder, of one training or of folds, or its results folder.

    Raises:
        UserError: a damaged file.
    """
    run = read_run(path)
    contract, checkpoint = saved_contract(run.trainings[0].path) if run.trainings else ({}, "")
    cases, note = gallery(run)
    tables = [
        results_table(run),
        numbers_table(run),
        patients_table(run),
        splits_table(run),
        contract_table(contract, checkpoint),
        environment_table(run.environment, run.trainings[0].summary if run.trainings else {}),
    ]
    config = {key: Path(v).name if key in FOLDERS and isinstance(v, str) else v for key, v in run.config.items()}
    return Page(
        title=f"Segmentation of {_asked(run)}",
        subtitle=_subtitle(run),
        summary=" ".join([_question(run), *_answer(run)]),
        methods=_methods(run),
        notices=_notices(run),
        figures=[*result_figures(run), *training_figures(run)],
        gallery=cases,
        gallery_note=note,
        tables=[table for table in tables if table.rows],
        details=[("Resolved configuration", yaml.safe_dump(config, sort_keys=False))] if config else [],
    )


# --- words ------------------------------------------------------------------------------------------------------------


def _asked(run: SegmentationRun) -> str:
    named = run.structures or tuple(_section(run, "structures") or _section(run, "classes"))
    return run.lesion or listed(list(named)) or "images"


def _subtitle(run: SegmentationRun) -> str:
    cohort = Path(str(run.config.get("data") or "")).name or str(run.settings.get("cohort") or "")
    parts = [f"Run {(run.overlays.parent.parent if run.trainings else run.path).resolve().name}"]
    parts += [f"cohort {cohort}"] if cohort else []
    parts += [f"head {_head(run)}"] if _head(run) else []
    return ", ".join(parts)


def _question(run: SegmentationRun) -> str:
    shown = f"in {'still images' if _frames(run) == 1 or run.config.get('still') else 'cine clips'}"
    tested = run.select("dice", convention=POSITIVES)
    where = f", tested on {plural(_tested(run), 'patient')} that no training saw" if tested else ""
    return f"The head '{_head(run) or 'unnamed'}' was trained to find {_asked(run)} {shown}{where}."


def _answer(run: SegmentationRun) -> list[str]:
    """The Dice of every structure with its strongest baseline, and how well the lesion is detected."""
    if not run.rows:
        return ["There are no results yet."]
    first = [run.lesion] if run.lesion in run.structures else list(run.structures)
    said: list[str] = []
    for structure in first:
        for own in run.select("dice", structure=str(structure), unit="scan", convention=POSITIVES):
            if own["model"] == run.own:
                said.append(_overlap(run, own, first=not said))
    if run.lesion:
        said.append(_detected(run, "patient") or _detected(run, "scan"))
    return [sentence for sentence in said if sentence]


def _overlap(run: SegmentationRun, own: Row, *, first: bool) -> str:
    value = f"{number(own['value'], 2)} (95 % CI {interval(own)}; {size(own)})"
    if not first:
        return f"For {place(own)} it is {value}."
    text = f"On scans that show it, {own['model']} reaches a mean Dice of {value} for {place(own)}."
    rivals = run.select("dice", structure=own["structure"], unit="scan", convention=POSITIVES)
    trained = str(own["model"]).partition(",")[2]  # ", 5 patients": against baselines that were fitted on as many
    rivals = [r for r in rivals if r.get("baseline") and r.get("phase") == own.get("phase")]
    rivals = [r for r in rivals if str(r["model"]).partition(",")[2] in ("", trained)]
    if not rivals:
        return text + " No baseline was computed, so the number stands alone."
    best = max(rivals, key=lambda row: row["value"])
    certain = "" if best.get("ci_low") is None else f" (95 % CI {interval(best)})"
    return (
        f"{text} The strongest baseline, '{best['model']}', reaches {number(best['value'], 2)}{certain}. {_verdict(own, best)}"
    )


def _verdict(own: Row, best: Row) -> str:
    """Plain words that claim no more than two intervals allow; a baseline without one is certain."""
    low, high = own.get("ci_low"), own.get("ci_high")
    if low is None or high is None:
        return "Without an interval, these numbers do not show which is better."
    base = [best["value"] if best.get(end) is None else best[end] for end in ("ci_low", "ci_high")]
    if low > base[1] or high < base[0]:
        return f"The head is {'ahead of' if low > base[1] else 'behind'} it, and the intervals do not overlap."
    return "The intervals overlap, so these numbers alone do not show that one is better than the other."


def _detected(run: SegmentationRun, unit: str) -> str:
    """`By patient, sensitivity 0.80 (0.61 to 0.93), specificity 0.70 (...), AUC 0.82 (...).`"""
    parts = []
    for metric in ("sensitivity", "specificity", "auc"):
        row = next((r for r in run.select(metric, unit=unit, structure=str(run.lesion)) if r["model"] == run.own), None)
        if row is not None:
            name = "AUC" if metric == "auc" else metric
            parts.append(f"{name} {number(row['value'], 2)} ({interval(row)}; {plural(row['n_units'], unit)})")
    return f"It detects {run.lesion} by {unit} with {listed(parts)}." if parts else ""


def _notices(run: SegmentationRun) -> list[Notice]:
    notices = [Notice("warning", run.stamp)] if run.stamp else []
    if run.rows and not run.stamp:
        notices.append(Notice("good", "No patient was tested by a head or an encoder that had seen them."))
    notices += [Notice("warning", alarm) for alarm in _alarms(run)]
    notices += _thin_ice(run)
    notices += [Notice("note", str(note)) for note in run.record.get("notes") or ()]
    notices += _unfinished(run)
    wait = max((w for t in run.trainings if (w := last(t.log, "data_wait")) is not None), default=0.0)
    if wait > SLOW_LOADING:
        advice = "raise loop.workers or put the cohort on a faster disk"
        notices.append(Notice("note", f"{wait:.0%} of the time went into waiting for data; {advice}."))
    bad = sum(t.bad_lines for t in run.trainings)
    if bad:
        notices.append(Notice("note", f"Left out because unreadable: {plural(bad, 'line')} of log.jsonl."))
    return notices


def _alarms(run: SegmentationRun) -> list[str]:
    return [f"{t.name}: {a}" if t.name else str(a) for t in run.trainings for a in t.summary.get("alarms") or ()]


def _thin_ice(run: SegmentationRun) -> list[Notice]:
    """Why the numbers could be less certain than they look."""
    notices = []
    shown = [r for r in run.select("dice", convention=POSITIVES, unit="scan") if r["model"] == run.own]
    if shown and (fewest := min(shown, key=lambda row: row["n_patients"]))["n_patients"] < FEW_PATIENTS:
        text = f"Only {plural(fewest['n_patients'], 'test patient')} show {place(fewest)}"
        text += ": intervals from so few are themselves uncertain; read this as a pilot."
        notices.append(Notice("note", text))
    for row in run.select("hd95"):
        if row["model"] == run.own and row.get("dropped"):
            of = f"{row['dropped']} of {row['n_units'] + row['dropped']} scans"
            text = f"HD95 of {place(row)} leaves out {of}, on which nothing was found or whose pixel spacing is in another unit"
            notices.append(Notice("note", f"{text}; its mean is over the others and flatters."))
    if run.rows and not any(row.get("baseline") for row in run.rows):
        notices.append(
            Notice("warning", "No baseline stands beside these numbers; train one, e.g. a U-Net on the still frame.")
        )
    logged = [t for t in run.trainings if len(t.log)]
    if logged and not any(len(part(t.log, "validation")) for t in logged):
        text = (
            "Nobody was held back for validation, so the last step of the training was tested and overfitting cannot be judged."
        )
        notices.append(Notice("note", text))
    return notices


def _unfinished(run: SegmentationRun) -> list[Notice]:
    open_ = [t for t in run.trainings if not t.summary]
    if not open_:
        told = "The trainings are finished, but there are no results; make them with --resume."
        return [Notice("note", told)] if run.trainings and not run.rows else []
    which = f" of {listed([t.name for t in open_][:4])}" if open_[0].name else ""
    text = f"summary.json{which} is missing: the run is still going on or was interrupted; continue it with --resume."
    return [Notice("note", text)]


def _methods(run: SegmentationRun) -> str:
    """To paste into a paper."""
    versions = run.environment.get("versions") or {}
    tools = listed([f"{name} {versions[name]}" for name in ("ssl4neuro", "torch") if name in versions]) or "ssl4neuro"
    head = _head(run)
    network = PAPERS.get(head.split("_")[0])
    text = [f"The segmentation head '{head}'{f', after {network},' if network else ''} was trained with {tools}"]
    classes = list(_section(run, "classes"))
    text[0] += f" on the classes {listed(classes)} (and background)." if classes else "."
    frames = _frames(run)
    if frames:
        text.append(f"It saw {plural(frames, 'frame')} per clip and segmented the labelled one.")
    text += [*_start(run), *_loss(run), *_optimiser(run), *_folds(run)]
    text += [str(run.record.get("method") or "")]
    baselines = list(dict.fromkeys(str(row["model"]) for row in run.rows if row.get("baseline")))
    text += [f"Baselines, evaluated in the same way: {listed(baselines)}."] if baselines else []
    text += [f"{run.stamp[:1].upper()}{run.stamp[1:]}."] if run.stamp else []
    return " ".join(filter(None, text))


def _start(run: SegmentationRun) -> list[str]:
    if not run.config:
        return []
    init = Path(str(run.config.get("init") or "")).name
    if not init:
        return ["All weights started at random."]
    frozen = " and stayed as they were" if run.config.get("freeze") else ""
    return [f"The encoders started from self-supervised pretraining ('{init}', no labels){frozen}."]


def _loss(run: SegmentationRun) -> list[str]:
    """By the options of `heads/segmentation_loss.py`."""
    loss = _section(run, "loss")
    alpha = loss.get("alpha")
    if not isinstance(alpha, int | float):
        return []
    terms = [f"{alpha:g} × soft Dice", f"{1 - alpha:.3g} × root mean square of the uncertainty"]
    terms += [f"{loss['cross_entropy']:g} × cross-entropy"] if loss.get("cross_entropy") else []
    focal = f" with focal exponent {loss['focal_gamma']:g}" if loss.get("focal_gamma") else ""
    first = f"; the same, times {loss['first']:g}, of the answer before refinement" if loss.get("first") else ""
    return [f"Loss: {' + '.join(terms)}{focal}{first}."]


def _optimiser(run: SegmentationRun) -> list[str]:
    optimiser, sampling = _section(run, "optimiser"), _section(run, "sampling")
    steps = [int(t.summary["steps"]) for t in run.trainings if isinstance(t.summary.get("steps"), int | float)]
    if not optimiser:
        return []
    took = [float(t.summary["seconds"]) for t in run.trainings if isinstance(t.summary.get("seconds"), int | float)]
    length = f", {plural(max(steps), 'step')} at most" if steps else ""
    seconds = f" ({duration(sum(took))} in all)" if took else ""
    return [
        f"Optimiser: {optimiser.get('name')}, peak learning rate {optimiser.get('rate')}, weight decay "
        f"{optimiser.get('weight_decay')}, {optimiser.get('schedule')} schedule, batches of {sampling.get('batch_size')} clips"
        f"{length}{seconds}, seed {run.config.get('seed')}."
    ]


def _folds(run: SegmentationRun) -> list[str]:
    sizes = [t.split for t in run.trainings if t.split]
    if not sizes:
        return []
    train, validation, test = ([s.get(name, 0) for s in sizes] for name in ("train", "validation", "holdout"))
    n = f"{_range(train)} patients to train, {_range(validation)} to choose the checkpoint, {_range(test)} to test"
    folds = int(run.config.get("folds") or 0) or len({t.path.name for t in run.trainings if t.path.name.startswith("fold-")})
    if folds > 1:
        return [f"Patients were divided into {folds} folds, each tested once by a head that had not seen it ({n})."]
    return [f"Patients were divided before training ({n})."]


def _range(values: list[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


def _tested(run: SegmentationRun) -> int:
    rows = [row["n_patients"] for row in run.rows if row["model"] == run.own]
    return max(rows, default=0)


def _head(run: SegmentationRun) -> str:
    head = run.config.get("head")
    return str((head.get("name") if isinstance(head, Mapping) else head) or run.settings.get("head") or "")


def _frames(run: SegmentationRun) -> int:
    value = (_section(run, "clip") or run.settings.get("clip") or {}).get("frames")
    return value if isinstance(value, int) else 0


def _section(run: SegmentationRun, key: str) -> Mapping[str, Any]:
    """A section of the configuration, empty where it is missing or something else."""
    value = run.config.get(key)
    return value if isinstance(value, Mapping) else {}
