"""What the report of a network-state study says in sentences: the answer, its limits, and a Methods paragraph."""

from collections.abc import Mapping
from typing import Any

from ssl4neuro.evaluate.baselines import NUISANCE_ONLY
from ssl4neuro.evaluate.network_state.baselines import COMPACT
from ssl4neuro.evaluate.network_state.fold import HEAD
from ssl4neuro.evaluate.network_state.items import WHOLE
from ssl4neuro.evaluate.network_state.table import ORDERING
from ssl4neuro.evaluate.nuisance_check import NAME
from ssl4neuro.evaluate.residualise import SUFFIX
from ssl4neuro.report.checks import check_notices
from ssl4neuro.report.network_state_folder import Row, StudyFolder
from ssl4neuro.report.page import Notice, listed, number, plural
from ssl4neuro.report.verdict import GLOSSARY, LEVEL, interval, p_words

OBJECTIVES = {
    "paper": "supervised contrastive learning of network and state (O1) and cross-modal alignment of map and course (0.5 × O3)",
    "author_repo": "paired contrastive learning of a subject's two scans (O2)",
    "change_aware": "an embedding split into what stays and what changes (O5)",
    "each_modality": (
        "supervised contrast of network and state on the joint embedding and on each modality (temperature 0.5), and"
        " 0.1 × cross-modal alignment"
    ),
    "label_free": "cross-modal and within-modality contrastive learning without labels (O3 and O4)",
}
NAMES = {"map": "spatial map", "course": "time course"}
PAPER = "Jeyabose et al., BioMed Eng OnLine 24:125 (2025)"
PAPER_NOTE = (
    f"The paper's ranges ({PAPER}) are of other patients, folds' means without intervals, and stand here as context only."
)
LIMITS = (
    "No controls were scanned: a recovery score has no norm, and a rise may be healing, drug, age, sedation or the scanner.",
    "The later scan is always the later one: whatever changes with time or with the operation itself goes with the state.",
)


def answers(folder: StudyFolder) -> list[tuple[str, str]]:
    """Question, answer, recovery, what stands beside it, who was in it, how to read it."""
    ordering = "Pair ordering: in how many patients the later scan has the higher score; 0.5 is a coin toss."
    found = [
        ("Asked", _question(folder)),
        ("Answer", _answer(folder)),
        ("Networks", _networks(folder)),
        ("Recovery", _recovery(folder)),
        ("Beside it", _beside(folder)),
        ("Nuisance variables", _nuisances(folder)),
        ("Who was in it", _who(folder)),
        ("Limits", " ".join(LIMITS)),
        ("How to read it", f"{GLOSSARY['AUC']} {ordering}"),
    ]
    return [(name, text) for name, text in found if text]


def notices(folder: StudyFolder) -> list[Notice]:
    """Flagged checks first, then notes of the training."""
    found = check_notices(folder.record.get("checks") or ())
    return [*found, *(Notice("note", str(note)) for note in folder.study.get("notes") or ())]


def _question(folder: StudyFolder) -> str:
    states = f"'{folder.after}' or '{folder.before}'"
    told = "in patients whom neither encoder nor classifier has seen"
    return f"Can it be told from a network's map and time course whether a scan is {states}, {told}?"


def _answer(folder: StudyFolder) -> str:
    row = folder.row(WHOLE, "AUC")
    if row is None:
        return ""
    order = folder.row(WHOLE, ORDERING)
    told = _score(row)
    if row["p"] is None:
        text = f"No test was made. The whole brain reaches {told}."
    elif row["p"] <= LEVEL:
        text = f"Evidence that it can ({p_words(row['p'])}): the whole brain reaches {told}."
        if any(c.get("name") == NAME and c.get("status") == "flagged" for c in folder.record.get("checks") or ()):
            text += " But nuisance variables tell the scans apart as well: the networks need not have changed (see above)."
    else:
        text = f"No evidence that it can ({p_words(row['p'])}): the whole brain reaches {told}. That is no evidence against it."
    if order is not None and order["value"] is not None:
        share, n = number(order["value"] * 100, 0), plural(order["n_subjects"], "patient")
        text += f" The later scan has the higher score in {share} % of {n} (95 % CI {interval(order)})."
    return text


def _networks(folder: StudyFolder) -> str:
    rows = [row for name in folder.networks if (row := folder.row(name, "AUC")) is not None]
    hits = [row for row in rows if row["p_corrected"] is not None and row["p_corrected"] <= LEVEL]
    named = "; ".join(f"{row['network']} {number(row['value'], 2)} ({interval(row)})" for row in rows)
    if not any(row["p_corrected"] is not None for row in rows):
        return f"AUC: {named}."
    return f"Evidence in {len(hits)} of {len(rows)} networks after Holm's correction. AUC: {named}."


def _recovery(folder: StudyFolder) -> str:
    rows = [row for row in folder.record.get("mean_recovery") or () if row["value"] is not None]
    if not rows:
        return "No subject has scans in both states, so there are no recovery scores."
    told = listed([f"{row['network']} {number(row['value'], 2)} ({interval(row)})" for row in rows])
    return f"Mean recovery score (calibrated probability of '{folder.after}', later minus earlier scan): {told}."


def _beside(folder: StudyFolder) -> str:
    others = [r for r in folder.rows if r["network"] == WHOLE and r["metric"] == "AUC" and r["model"] != folder.model]
    plain = [r for r in others if "regressed out" not in r["model"] and r["model"] not in ("majority", NUISANCE_ONLY)]
    told = "; ".join(f"{r['model']} {number(r['value'])} ({interval(r)})" for r in plain)
    return f"Whole brain, same folds: {told}.{_ahead(folder)}" if told else ""


def _ahead(folder: StudyFolder) -> str:
    """Paired differences, and whether the encoder adds to the features that need none."""
    rows = [row for row in folder.differences if row["network"] == WHOLE and row["other"] != NUISANCE_ONLY]
    told = "; ".join(f"minus {row['other']} {_short(row)}" for row in rows)
    text = f" Paired difference in AUC, {folder.model} {told}." if told else ""
    compact = next((row for row in rows if row["other"] == COMPACT), None)
    if compact is None or compact["ci_low"] is None:
        return text
    if compact["ci_low"] > 0:
        return f"{text} The encoder adds to the {COMPACT}."
    if compact["ci_high"] < 0:
        return f"{text} The encoder is not shown to add to the {COMPACT}: it does worse than these alone."
    return f"{text} The encoder is not shown to add to the {COMPACT}: the interval of the difference includes 0."


def _nuisances(folder: StudyFolder) -> str:
    alone, left = folder.row(WHOLE, "AUC", NUISANCE_ONLY), folder.row(WHOLE, "AUC", folder.model + SUFFIX)
    if alone is None:
        return "No nuisance variable was known; whether motion, scanner or sedation explain the result is open."
    known = folder.record.get("nuisances") or {}
    names, fixed = known.get("columns") or (), known.get("fixed") or ()
    these = "Nuisance variables alone" + (f" ({', '.join(names)})" if names else "")
    p = "" if alone["p"] is None else f", {p_words(alone['p'])}"
    above = alone["p"] <= LEVEL if alone["p"] is not None else (alone["ci_low"] or 0) > 0.5
    verdict = "evidence" if above else "no evidence"
    text = f"{these}: {verdict} that they tell the states apart (AUC {_short(alone)}{p})."
    text += f" Of these, {', '.join(fixed)} cannot differ between a subject's scans." if fixed else ""
    text += " The age gap between the scans is not controlled." if "age" in fixed else ""
    if left is not None:
        text += f" With them regressed out of its scores the model keeps AUC {_short(left)}."
    return text


def _who(folder: StudyFolder) -> str:
    row = folder.row(WHOLE, "AUC")
    scores = folder.scores
    sites = scores["site"][scores["site"] != ""].nunique()
    text = f"{plural(row['n_subjects'], 'patient')}, {plural(row['n_samples'], 'scan')}" if row is not None else ""
    text += f", {plural(sites, 'site')}" if sites else ""
    orderable = folder.row(WHOLE, ORDERING)
    if orderable is not None:
        text += f"; {orderable['n_subjects']} with both states"
    return text + (f", of the cohort '{folder.study['cohort']}'." if folder.study.get("cohort") else ".")


def methods(folder: StudyFolder) -> str:
    """To paste into a paper."""
    study, versions = folder.study, folder.environment.get("versions") or {}
    tools = (
        listed([f"{name} {versions[name]}" for name in ("ssl4neuro", "torch", "scikit-learn") if name in versions])
        or "ssl4neuro"
    )
    objective = _objective(study)
    states = f"'{folder.before}' or '{folder.after}'"
    text = [f"Independent components of {listed(folder.networks)} were classified as {states} with {tools}."]
    if objective:
        parameters = f" ({study['parameters']:,} parameters)" if isinstance(study.get("parameters"), int) else ""
        modalities = [NAMES.get(str(name), str(name)) for name in study.get("modalities") or ("map", "course")]
        text.append(f"Stage one: an encoder of {listed(modalities)}{parameters} was trained by {objective}{_training(study)}.")
    network = f"a small neural network (batch norm, {study.get('hidden') or 64} units, GELU, dropout)"
    fitted = "one for all networks, with a code for the network" if study.get("heads") == "shared" else "per network"
    text.append(
        f"Stage two ({fitted}): the embedding joined by mean loadings of regions (principal components) and nine numbers of"
        f" the time course entered {network if folder.model == HEAD else folder.model}; L2-penalised logistic regression on the"
        " same features stands beside it."
    )
    if study.get("folds"):
        repeats, inner = plural(int(study.get("repeats") or 1), "repeat"), plural(int(study.get("inner") or 0), "inner split")
        text.append(f"Nested cross-validation by subject: {study['folds']} outer folds, {repeats}, {inner}.")
    text.append(str(folder.record.get("method") or ""))
    text.append(_masked(study.get("lesion_masks")))
    return " ".join(filter(None, text))


def _objective(study: Mapping[str, Any]) -> str:
    """The preset's words only where it was trained as it stands: with both modalities and its own objectives."""
    given = str(study.get("objective") or "")
    modalities = study.get("modalities")
    changed = bool(study.get("custom")) or (modalities is not None and len(modalities) == 1)
    return given if changed else OBJECTIVES.get(str(study.get("preset")), given)


def _masked(masks: bool | Mapping[str, int] | None) -> str:
    if isinstance(masks, Mapping) and 0 < masks["masked"] < masks["subjects"]:
        return f"Maps of {masks['masked']} of {masks['subjects']} subjects were masked by the lesions of both scans."
    masked = masks["masked"] if isinstance(masks, Mapping) else masks
    return "Maps were masked by the lesions of both scans." if masked else ""


def _training(study: Any) -> str:
    parts = [f"{study['epochs']} epochs"] if study.get("epochs") else []
    parts += [f"{study['grid_mm']:g} mm voxels"] if isinstance(study.get("grid_mm"), int | float) else []
    return f" for {parts[0]}{' with ' + parts[1] if len(parts) > 1 else ''}" if study.get("epochs") else ""


def _short(row: Row) -> str:
    return f"{number(row['value'])} ({interval(row)})"


def _score(row: Row) -> str:
    n = f"{plural(row['n_subjects'], 'patient')}, {plural(row['n_samples'], 'scan')}"
    return f"AUC {number(row['value'])} (95 % CI {interval(row)}; {n}; chance 0.5)"
