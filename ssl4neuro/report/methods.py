"""The Methods paragraph of a results report, to paste into a paper: complete, and only what the results record says."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl4neuro.report.folder import read_config
from ssl4neuro.report.page import listed, plural
from ssl4neuro.report.results_folder import Results
from ssl4neuro.report.results_words import cohort_words
from ssl4neuro.report.verdict import LEVEL

TOOLS = ("ssl4neuro", "numpy", "scipy", "scikit-learn", "nilearn", "torch")


def methods(results: Results) -> str:
    """Cohort, encoder, probe, folds, confounds, statistics, corrections, versions."""
    stamp = results.record.get("stamp")
    sentences = [
        _cohort(results),
        _encoder(results),
        *_folds(results),
        str(results.record.get("method") or ""),
        *_confounds(results),
        *_statistics(results),
        *_baselines(results),
        f"{str(stamp)[:1].upper()}{str(stamp)[1:]}." if stamp else "",
        _audit(results),
        _tools(results),
    ]
    return " ".join(filter(None, sentences)).replace("  ", " ")


def _cohort(results: Results) -> str:
    own, held = results.own, results.held_out(results.own["name"])
    size = plural(own["n_subjects"], "subject")
    if own.get("n_samples") and own["unit"] != "subject":
        size += f" ({plural(own['n_samples'], own['unit'])})"
    if "site" in held and held["site"].nunique() > 1:
        size += f" from {plural(held['site'].nunique(), 'site')}"
    target = f"'{results.record.get('target')}'"
    what = f"{target} ({listed(results.classes)})" if 1 < len(results.classes) <= 8 else target
    return f"A {results.record.get('probe')} probe predicted {what} from frozen embeddings of {size}{cohort_words(results)}."


def _encoder(results: Results) -> str:
    """By the run's own configuration where it is at hand, otherwise by the checkpoint's hash."""
    if results.source.get("foreign"):
        table = Path(str(results.source.get("embeddings"))).name
        return (
            f"The embeddings were read from a table of another tool ('{table}'); what its model was trained on is not recorded."
        )
    sha = str(results.source.get("checkpoint_sha256") or "")[:12]
    run = results.source.get("run")
    config = read_config(Path(str(run)) / "config.yaml") if run else {}
    modalities = config.get("modalities")
    known = [
        f"{name}: {_mapping(entry, 'encoder').get('name')}{_preset(_mapping(entry, 'encoder'))}"
        for name, entry in (modalities.items() if isinstance(modalities, Mapping) else ())
        if isinstance(entry, Mapping)
    ]
    if not known:
        return f"The embeddings came from an encoder pretrained with ssl4neuro (checkpoint {sha})." if sha else ""
    objectives = config.get("objectives")
    names = [
        str(o.get("name") if isinstance(o, Mapping) else o)
        for o in (objectives.values() if isinstance(objectives, Mapping) else ())
    ]
    trained = f" with {listed(list(dict.fromkeys(names)))}" if names else ""
    return f"The encoders ({'; '.join(known)}) had been pretrained{trained}{f' (checkpoint {sha})' if sha else ''}."


def _folds(results: Results) -> list[str]:
    settings = results.settings
    if settings.get("leave_site_out"):
        return ["Each site was left out in turn and tested by a probe fitted on the others."]
    if not settings.get("folds"):
        return []
    repeats = f", repeated {settings['repeats']} times" if (settings.get("repeats") or 1) > 1 else ""
    return [f"It was cross-validated in {settings['folds']} folds{repeats}."]


def _confounds(results: Results) -> list[str]:
    found, chosen = [], results.confounds
    if chosen.get("harmonise"):
        kept = f", preserving {listed([str(c) for c in chosen['preserve']])}" if chosen.get("preserve") else ""
        unseen = " Rows of sites without training rows were taken as they were." if chosen.get("unseen_sites") == "pool" else ""
        how = "ComBat" if chosen["harmonise"] == "combat" else str(chosen["harmonise"])
        found.append(
            f"Effects of '{chosen.get('site')}' were removed by {how}, fitted on the training rows of every fold{kept}.{unseen}"
        )
    elif chosen.get("site"):
        found.append(f"Sites ('{chosen['site']}') were spread over the folds; features were not harmonised.")
    if chosen.get("nuisance"):
        columns = listed([str(c) for c in chosen["nuisance"]])
        found.append(
            f"A model of the nuisance variables alone ({columns}) was fitted in the same folds, and every embedding was also"
            " probed with them regressed out inside the fold."
        )
    return found


def _statistics(results: Results) -> list[str]:
    settings, found = results.settings, []
    numbers = [
        f"{settings[key]:,} {text}" if isinstance(settings.get(key), int) else ""
        for key, text in (("bootstrap", "bootstrap draws"), ("permutations", "permutations"))
    ]
    numbers = [n for n in numbers if n and not n.startswith("0 ")]
    if numbers:
        scheme = f" of the labels {results.record['permutation']}" if results.record.get("permutation") else ""
        seed = "" if settings.get("seed") is None else f"; seed {settings['seed']}"
        found.append(f"There were {listed(numbers)}{scheme if settings.get('permutations') else ''}{seed}.")
    if "targets" in results.tables or any(row.get("p_corrected") is not None for row in results.rows):
        found.append("p-values were corrected for the number of targets by the maximum statistic over permutations.")
    if any(row.get("p_equivalence") is not None for row in results.rows):
        width = settings.get("equivalence_margin", settings.get("margin"))
        of = f" ± {width}" if width is not None else ""
        found.append(f"Equivalence to chance was tested by two one-sided tests against chance{of}.")
    if "comparison" in results.tables:
        found.append("Embedding and baseline were compared in pairs, on the same held-out subjects.")
    return [*found, f"The level of significance was {LEVEL}."] if found else found


def _baselines(results: Results) -> list[str]:
    names = sorted({str(row["name"]) for row in results.rows if row.get("baseline")})
    return [f"Baselines, evaluated in the same way: {listed(names)}."] if names else []


def _audit(results: Results) -> str:
    checks = [c for c in results.record.get("checks") or () if isinstance(c, Mapping)]
    if not checks:
        return ""
    counts = {state: sum(c.get("status") == state for c in checks) for state in ("passed", "flagged", "not checkable")}
    flagged = [str(c.get("name")) for c in checks if c.get("status") == "flagged"]
    named = f" ({listed(flagged)})" if flagged else ""
    return (
        f"An audit for leakage passed {counts['passed']} of {plural(len(checks), 'check')}, flagged {counts['flagged']}{named}"
        f" and could not decide {counts['not checkable']}."
    )


def _tools(results: Results) -> str:
    versions = _mapping(results.environment, "versions")
    named = [f"{name} {versions[name]}" for name in TOOLS if name in versions]
    python = f" under Python {results.environment['python']}" if results.environment.get("python") else ""
    return f"Software: {listed(named)}{python}." if named else ""


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    found = value.get(key) if isinstance(value, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _preset(encoder: Mapping[str, Any]) -> str:
    return f" ({encoder['preset']})" if encoder.get("preset") else ""
