"""What a results report says in sentences: asked, answered, beside what, from whom; and what must not be overlooked."""

from typing import Any

from ssl4neuro.report.checks import check_notices
from ssl4neuro.report.page import Notice, listed, number, plural
from ssl4neuro.report.results_folder import LOWER_IS_BETTER, NUISANCE_ONLY, Results, Row
from ssl4neuro.report.verdict import GLOSSARY, against_baseline, against_chance, interval, p_words

NAMES = {"R2": "R²"}
USUAL = "motion, image quality, length, age, sex or site"  # columns of the nuisance-only model unless others are named


def answers(results: Results) -> list[tuple[str, str]]:
    """Question, answer, what stands beside it, who was in it, how to read it."""
    found = [
        ("Asked", question(results)),
        ("Answer", f"{against_chance(_row(results.own), margin(results))[1]}{_but(results)}"),
        ("In numbers", _numbers(results)),
        ("Best baseline", _baseline(results)),
        ("Nuisance variables alone", _nuisance(results)),
        ("Who was in it", who(results)),
        ("How to read it", GLOSSARY.get(str(results.own["metric"]), "")),
    ]
    return [(name, text) for name, text in found if text]


def question(results: Results) -> str:
    """`Can 'state' (post against pre) be predicted ...?`"""
    what = f"'{results.record.get('target', 'the target')}'"
    classes, unit = results.classes, str(results.own["unit"])
    if len(classes) == 2:
        what += f" ({classes[1]} against {classes[0]})"
    elif 2 < len(classes) <= 8:
        what += f" ({listed(classes)})"
    elif classes:
        what += f" ({len(classes)} classes)"
    model = "baselines alone" if results.own.get("baseline") else f"the embedding '{results.own['name']}'"
    blind = knows_seen(results) and not results.record.get("stamp")
    unseen = "neither encoder nor probe has" if blind else "the probe has not"
    return f"Can {what} be predicted from {model} of a {unit}, for people whom {unseen} seen?"


def score(row: Row) -> str:
    """`AUC 0.812 (95 % CI 0.750 to 1.000; 4 subjects, 8 sessions; chance 0.500)`."""
    n = plural(row["n_subjects"], "subject")
    if row.get("n_samples") and row["unit"] != "subject":
        n += f", {plural(row['n_samples'], row['unit'])}"
    chance = "" if row.get("chance") is None else f"; chance {number(row['chance'])}"
    return f"{NAMES.get(row['metric'], row['metric'])} {number(row['value'])} (95 % CI {interval(row)}; {n}{chance})"


def who(results: Results) -> str:
    """How many subjects, scans and sites were tested, and what is known of those left out."""
    own, held = results.own, results.held_out(results.own["name"])
    parts = [plural(own["n_subjects"], "subject")]
    if own.get("n_samples") and own["unit"] != "subject":
        parts.append(plural(own["n_samples"], own["unit"]))
    if "site" in held:
        parts.append(plural(held["site"].nunique(), "site"))
    text = f"Tested: {', '.join(parts)}"
    if results.classes and len(held):
        counts = held[held["repeat"] == held["repeat"].min()]["truth"].value_counts() if "repeat" in held else None
        if counts is not None and len(counts) <= 8:
            text += f" ({', '.join(f'{name} {counts.get(name, 0)}' for name in results.classes)})"
    return f"{text}{cohort_words(results)}. What was left out, and why, stands in the notes below."


def cohort_words(results: Results) -> str:
    """` of the cohort 'rest'`; nothing for a table of another tool, which names none."""
    name = None if results.source.get("foreign") else results.source.get("name")
    return f" of the cohort '{name}'" if name else ""


def margin(results: Results) -> float | None:
    """Of the equivalence test, where it was recorded."""
    return next((results.settings[k] for k in ("margin", "equivalence_margin") if results.settings.get(k) is not None), None)


def notices(results: Results) -> list[Notice]:
    """Warnings first: overlap, flagged checks, nuisances that do as well, missing baselines; then notes."""
    stamp = results.record.get("stamp")
    checks = check_notices(results.record.get("checks") or ())
    found = [n for n in checks if n.level == "warning"]
    if stamp and not any(str(stamp) in n.text for n in found):
        found.insert(0, Notice("warning", str(stamp)))
    if not results.baselines:
        found.append(Notice("warning", "No baseline stands beside these numbers; run the probe with its baselines."))
    if not any("nuisance" in str(c.get("name")).lower() for c in results.record.get("checks") or ()):
        found += _as_good(results)
    if not stamp and knows_seen(results):
        found.append(Notice("good", "No subject of a test fold was seen in pretraining."))
    found += [n for n in checks if n.level != "warning"]
    gone = [str(name) for name in results.record.get("tables") or () if not (results.path / f"{name}.tsv").is_file()]
    missing = [f"{name}.tsv is missing from the folder, so its table and figure are left out." for name in gone]
    return found + [Notice("note", note) for note in dict.fromkeys([*results.notes, *missing])]


def _but(results: Results) -> str:
    """What has to be read before the answer is believed."""
    flagged = [c for c in results.record.get("checks") or () if c.get("status") == "flagged"]
    reasons = (
        [f"{plural(len(flagged), 'check')} of the leak audit {'is' if len(flagged) == 1 else 'are'} flagged"] if flagged else []
    )
    stamp = results.record.get("stamp")
    if stamp and not any(str(stamp) in str(c.get("detail")) for c in flagged):
        reasons.append("subjects seen in pretraining were tested")
    return f" But {listed(reasons)}: read the warnings above first." if reasons else ""


def _numbers(results: Results) -> str:
    own = results.own
    text = f"{_named(own)} reaches {score(own)}."
    others = [r for r in results.rows if not r.get("baseline") and r["metric"] == own["metric"] and r["name"] != own["name"]]
    if others:
        text += f" Further embeddings, tested without correction: {listed([_short(r) for r in others])}."
    return text


def _baseline(results: Results) -> str:
    best, own = results.best_baseline, results.own
    if best is None:
        blind = [f"'{r['name']}'" for r in results.rows if r.get("baseline") and r["metric"] == own["metric"]]
        beside = f" but {listed(blind)}, which sees no data," if blind else ""
        return f"No baseline{beside} was computed, so the number stands alone."
    if own["value"] is None:
        return f"'{best['name']}' reaches {score(best)}."
    sign = -1 if own["metric"] in LOWER_IS_BETTER else 1
    return f"'{best['name']}' reaches {score(best)}. {against_baseline(own, best, results.compared(), sign)}"


def _nuisance(results: Results) -> str:
    """Named, with its number and what it means."""
    row = results.nuisance
    if row is None:
        if results.own["unit"] == "sample":
            return f"Not run: {USUAL} belong to a whole scan or subject and cannot tell its samples apart."
        return f"Not run: {USUAL} were not known, so they cannot be excluded as the reason."
    columns = results.confounds.get("nuisance")
    named = f"{listed([str(c) for c in columns])} " if columns else f"{USUAL}, as far as known, "
    word = against_chance(_row(row))[0]
    meaning = {
        "evidence": "They predict it above chance, so the embedding may owe (part of) its score to them.",
        "no evidence": "No evidence that they predict it.",
        "equivalent": "They hardly predict it.",
        "untested": "",
    }[word]
    p = "" if row.get("p") is None else f", {p_words(row['p'])}"
    return f"The model '{NUISANCE_ONLY}' sees {named}and no image. It reaches {score(row)}{p}. {meaning}".strip()


def _as_good(results: Results) -> list[Notice]:
    """For results without an audit: nuisances that do at least as well as an embedding that is above chance."""
    row, own = results.nuisance, results.own
    sign = -1 if own["metric"] in LOWER_IS_BETTER else 1
    if row is None or own.get("baseline") or row["value"] is None or own["value"] is None:
        return []
    if against_chance(_row(own))[0] != "evidence" or sign * row["value"] < sign * own["value"]:
        return []
    found = f"{own['metric']} {number(row['value'])}"
    return [Notice("warning", f"Nuisance variables alone do as well as the embedding ({found}): they may be the reason.")]


def knows_seen(results: Results) -> bool:
    """Whether the firewall could look: a table of another tool does not tell whom its model has seen."""
    return not results.source.get("foreign")


def _row(row: Row) -> dict[str, Any]:
    return {key: row.get(key) for key in ("value", "ci_low", "ci_high", "p", "p_corrected", "p_equivalence", "chance")}


def _named(row: Row) -> str:
    return f"The {'baseline' if row.get('baseline') else 'embedding'} '{row['name']}'"


def _short(row: Row) -> str:
    p = "" if row.get("p") is None else f", {p_words(row['p'])}"
    return f"'{row['name']}' {number(row['value'])} ({interval(row)}{p})"
