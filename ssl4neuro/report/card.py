"""Model card of a checkpoint in Markdown (Mitchell et al., FAT* 2019): what it is for, who trained it, what it is worth.

It is made to be published with the weights: subjects are counted, never named, and folders stand by their last name.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl4neuro.errors import UserError
from ssl4neuro.report.folder import read_config, read_json, saved_contract
from ssl4neuro.report.page import duration, listed, number, plural
from ssl4neuro.report.people import described
from ssl4neuro.report.results_folder import NUISANCE_ONLY, Results, read_results
from ssl4neuro.report.results_words import margin
from ssl4neuro.report.run import contract_table, encoder_words, objective_words
from ssl4neuro.report.verdict import against_chance, interval, p_value

HEADER = """---
library_name: ssl4neuro
license: other  # TO FILL IN by the owner of the weights; the data they were trained on may restrict it
tags:
- self-supervised
- medical-imaging
---
"""
LIMITS = (
    "Not a medical device, and not validated for decisions about a patient.",
    "Trained on the people described above; how it does on other scanners, ages, diseases and preprocessing is unknown until it"
    " is tested. The input contract refuses what differs in form, not what differs in the people.",
    "The weights may carry traces of scanner, site and motion: look at the nuisance-only model and the site decodability of any"
    " probe, and harmonise inside the fold.",
    "Subjects whom the checkpoint has seen must not be in a test fold. Its manifest (salted hashes) lets ssl4neuro refuse them;"
    " other tools cannot tell.",
)


def model_card(run: Path, results: Sequence[Path] = ()) -> str:
    """The card; empty for a folder that holds no checkpoint of its own.

    Args:
        run: run folder.
        results: results folders of probes of this checkpoint.

    Raises:
        UserError: a damaged file, results without a checkpoint, or results that are of another checkpoint.
    """
    contract, checkpoint = saved_contract(run)
    if not contract:
        if results:
            raise UserError(f"--results: {run} holds no checkpoint, so there is no model card; name the run of the encoder")
        return ""
    config, environment = read_config(run / "config.yaml"), read_json(run / "environment.json")
    folder = run / "checkpoints" / checkpoint
    found = [read_results(path) for path in results]
    name = run.resolve().name
    sections = [
        f"{HEADER}\n# Model card: {name}\n",
        _summary(config, folder),
        _use(config),
        _training_data(run, config, folder),
        _training(config, read_json(run / "summary.json"), environment),
        _contract(contract, checkpoint),
        _evaluation(found, run, folder),
        "## Limitations\n\n" + "\n".join(f"- {text}" for text in LIMITS),
        _versions(environment),
        _loading(config, name),
        "## Licence\n\nTO FILL IN by the owner of the weights. The licence of ssl4neuro's code does not extend to them.",
    ]
    return "\n\n".join(text.strip("\n") for text in sections if text) + "\n"


def _summary(config: Mapping[str, Any], folder: Path) -> str:
    state, sha = read_json(folder / "state.json"), _sha(folder)
    head = config.get("head")
    kind = f"Head '{head.get('name') if isinstance(head, Mapping) else head}' on encoders" if head else "Encoders"
    step = f", step {state['step']:,}" if isinstance(state.get("step"), int) else ""
    identity = f" sha256 of the weights: `{sha}`." if sha else ""
    return f"{kind} ({encoder_words(config) or 'not recorded'}); checkpoint `{folder.name}`{step}.{identity}"


def _use(config: Mapping[str, Any]) -> str:
    modalities = listed(list(config["modalities"])) if isinstance(config.get("modalities"), Mapping) else "the same modalities"
    what = "segmentation of new scans of the same kind" if config.get("head") else f"embeddings of {modalities} of new cohorts"
    return (
        "## Intended use\n\n"
        f"Research: {what}, probed with cross-validation by subject beside simple baselines. The input must meet the contract"
        " below; ssl4neuro checks it and refuses or adapts. Not for clinical decisions, and not to identify people."
    )


def _training_data(run: Path, config: Mapping[str, Any], folder: Path) -> str:
    split = {name: people for name, people in read_json(run / "split.json").items() if isinstance(people, list)}
    seen = [*split.get("train", ()), *split.get("validation", ())]
    counted = ", ".join(f"{name} {len(people)}" for name, people in split.items())
    lines = [f"Subjects: {counted}. Held-out ones shaped no weights." if counted else "Subjects: not recorded."]
    for entry in read_json(folder / "manifest.json").get("entries") or ():
        name = (entry.get("provenance") or {}).get("dataset", "unnamed")
        lines.append(f"Dataset '{name}': {plural(len(entry.get('subjects') or ()), 'subject')} seen.")
    if seen and config.get("data"):
        cohort = Path(str(config["data"]))
        lines += described(cohort, seen)
        scans = read_json(cohort / "cohort.json").get("scans")
        lines += [f"The cohort holds {plural(scans, 'scan')}, held-out subjects included."] if isinstance(scans, int) else []
    return "## Training data\n\n" + "\n".join(f"- {line}" for line in lines)


def _training(config: Mapping[str, Any], summary: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    lines = [f"Objectives: {objective_words(config)}."] if objective_words(config) else []
    optimiser = config.get("optimiser")
    if isinstance(optimiser, Mapping):
        lines.append(f"Optimiser: {optimiser.get('name')}, peak learning rate {optimiser.get('rate')}.")
    if summary.get("steps"):
        took = f" in {duration(summary['seconds'])}" if isinstance(summary.get("seconds"), int | float) else ""
        device = environment.get("device", "an unrecorded device")
        lines.append(f"Length: {plural(int(summary['steps']), 'step')}{took} on {device}.")
    seed = environment.get("seed", config.get("seed"))
    lines += [f"Seed: {seed}."] if seed is not None else []
    lines += [f"Alarm during training: {alarm}" for alarm in summary.get("alarms") or ()]
    return "## Objectives and training\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""


def _contract(contract: Mapping[str, Any], checkpoint: str) -> str:
    return "## Input contract\n\n" + _markdown(("modality", "property", "expected"), contract_table(contract, checkpoint).rows)


def _evaluation(found: Sequence[Results], run: Path, folder: Path) -> str:
    title = "## Evaluation\n\n"
    if not found:
        return title + "No results were given (`ssl4neuro report RUN --results DIR,DIR`)."
    rows, told = [], []
    for results in found:
        own, best, alone = results.own, results.best_baseline, results.nuisance
        step = _step_of(results, run)
        what = f"{results.record.get('target')} ({own['metric']}, chance {number(own.get('chance'))})"
        cells = [f"{number(r['value'])} ({interval(r)})" if r is not None else "–" for r in (own, best, alone)]
        named = f" ({best['name']})" if best is not None else ""
        rows.append((what, cells[0], p_value(own.get("p")), cells[1] + named, cells[2], own["n_subjects"]))
        more = f" These are numbers of another checkpoint of this run, `{step}`." if step not in ("", folder.name) else ""
        stamp = f" {results.record['stamp']}." if results.record.get("stamp") else ""
        told.append(f"- {results.record.get('target')}: {_verdict(results)}{stamp}{more}")
    columns = ("target", "embedding (95 % CI)", "p", "best baseline", NUISANCE_ONLY, "subjects")
    note = "Held-out subjects; intervals and permutations by subject. Can it be predicted?"
    return f"{title}{_markdown(columns, rows)}\n\n{note}\n\n" + "\n".join(told)


def _step_of(results: Results, run: Path) -> str:
    """The checkpoint of the run that was evaluated; empty where the results do not say which."""
    sha = str(results.source.get("checkpoint_sha256") or "")
    steps = {_sha(path): path.name for path in sorted((run / "checkpoints").glob("step-*"))}
    if sha and any(steps) and sha not in steps:
        raise UserError(f"{results.path}: are results of an encoder of another run (checkpoint {sha[:12]}); leave them out")
    return steps.get(sha, "") if sha else ""


def _verdict(results: Results) -> str:
    own = results.own
    row = {key: own.get(key) for key in ("value", "ci_low", "ci_high", "p", "p_corrected", "p_equivalence", "chance")}
    return against_chance(row, margin(results))[1]


def _versions(environment: Mapping[str, Any]) -> str:
    versions = environment.get("versions")
    rows = [(name, value) for name, value in versions.items()] if isinstance(versions, Mapping) else []
    rows = [("python", environment["python"]), *rows] if environment.get("python") else rows
    return "## Versions\n\n" + (_markdown(("package", "version"), rows) if rows else "Not recorded.")


def _loading(config: Mapping[str, Any], name: str) -> str:
    command = f"ssl4neuro predict {name} COHORT OUT" if config.get("head") else f"ssl4neuro embed {name} COHORT OUT"
    code = f'from ssl4neuro import load\n\nmodel = load("{name}").model  # verified; nothing that is loaded runs code'
    python = "" if config.get("head") else f"\n\n```python\n{code}\n```"
    return f"## How to load\n\n```bash\n{command}\n```{python}"


def _sha(folder: Path) -> str:
    """sha256 of the weights as the checkpoint recorded it."""
    files = read_json(folder / "SHA256.json").get("files")
    entry = files.get("model.safetensors") if isinstance(files, Mapping) else None
    return str(entry.get("sha256") or "") if isinstance(entry, Mapping) else ""


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[str(cell).replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [" | ".join(columns), " | ".join("---" for _ in columns), *(" | ".join(row) for row in cells)]
    return "\n".join(f"| {line} |" for line in lines)
