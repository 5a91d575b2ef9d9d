"""The report of a pretraining run, finished or not. Subjects are counted, never named."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ssl4neuro.report.explanations import SECTION, explained
from ssl4neuro.report.folder import read_config, read_json, read_log, saved_contract
from ssl4neuro.report.log import last, part, run_figures
from ssl4neuro.report.page import Notice, Page, duration, listed, number, plural
from ssl4neuro.report.run_tables import PARTS, contract_table, environment_table, measures_table, split_table

SLOW_LOADING = 0.05  # share of the time spent waiting for data that is worth a hint


def run_page(path: Path) -> Page:
    """Read whatever the run has left and describe it.

    Raises:
        UserError: a damaged file.
    """
    config, environment = read_config(path / "config.yaml"), read_json(path / "environment.json")
    split, summary = read_json(path / "split.json"), read_json(path / "summary.json")
    log, bad_lines = read_log(path / "log.jsonl")
    contract, checkpoint = saved_contract(path)
    pictures = explained([path])
    best = read_json(path / "checkpoints" / "best.json")
    counts = {name: len(subjects) for name, subjects in split.items() if isinstance(subjects, list)}
    tables = [
        measures_table(log),
        split_table(counts),
        contract_table(contract, checkpoint),
        environment_table(environment, summary),
    ]
    return Page(
        title=f"Pretraining run {path.resolve().name}",
        subtitle=_subtitle(config, log),
        summary=_summary(config, counts, log, summary, best),
        methods=_methods(config, counts, environment, log, summary),
        notices=_notices(log, bad_lines, summary, bool(checkpoint)),
        figures=[*run_figures(log, best.get("step")), *pictures.figures],
        remarks={SECTION: pictures.notices} if pictures.notices else {},
        tables=[table for table in tables if table.rows],
        details=[("Resolved configuration", yaml.safe_dump(_without_places(config), sort_keys=False))] if config else [],
        commands=_commands(path.resolve().name, config),
    )


def _commands(name: str, config: Mapping[str, Any]) -> list[str]:
    """The resolved configuration is itself a recipe."""
    if not config.get("data"):
        return []
    return [f"ssl4neuro pretrain {name}/config.yaml --data {Path(str(config['data'])).name} --out {name}-again"]


# --- words ------------------------------------------------------------------------------------------------------------


def _subtitle(config: Mapping[str, Any], log: pd.DataFrame) -> str:
    cohort = Path(str(config.get("data") or "")).name
    parts = [f"Cohort {cohort}"] if cohort else []
    if "time" in log and len(log):
        parts.append(f"last log entry {pd.to_datetime(log['time'].max(), unit='s', utc=True):%Y-%m-%d %H:%M} UTC")
    return ", ".join(parts) or "No cohort recorded"


def _summary(
    config: Mapping[str, Any], counts: Mapping[str, int], log: pd.DataFrame, summary: Mapping[str, Any], best: Mapping[str, Any]
) -> str:
    trained = plural(counts["train"], "subject") if "train" in counts else "an unrecorded number of subjects"
    sentences = [f"{_encoders(config)} pretrained {_supervision(config)} on {trained}."]
    progress = _progress(log, summary)
    if summary:
        took = f" in {duration(summary['seconds'])}" if isinstance(summary.get("seconds"), int | float) else ""
        sentences.append(f"Training {'stopped early' if summary.get('stopped_early') else 'finished'} after {progress}{took}.")
    else:
        sentences.append(f"The run has not finished: its log ends after {progress}.")
    found = _best(log, config, best)
    if found:
        sentences.append(found)
    if counts.get("holdout"):
        sentences.append(f"{plural(counts['holdout'], 'subject').capitalize()} were held out and not read.")
    return " ".join(sentences)


def _encoders(config: Mapping[str, Any]) -> str:
    names = list(_mapping(config, "modalities"))
    if not names:
        return "A model was"
    return f"The {listed(names)} {'encoder was' if len(names) == 1 else 'encoders were'}"


def _supervision(config: Mapping[str, Any]) -> str:
    # whose clip or scan it is, is no label: nobody had to look at it
    labels = sorted({label for o in _objectives(config).values() for label in o.get("labels") or () if label != "subject"})
    return f"with the labels {listed(labels)}" if labels else "without labels"


def _objectives(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: o if isinstance(o, Mapping) else {"name": o} for name, o in _mapping(config, "objectives").items()}


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """A section of the configuration, empty where it is missing or something else."""
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}


def _progress(log: pd.DataFrame, summary: Mapping[str, Any]) -> str:
    steps = int(summary.get("steps") or (log["step"].max() if len(log) else 0))
    epochs = summary.get("epochs") or (log["epoch"].max() + 1 if "epoch" in log and log["epoch"].notna().any() else None)
    return plural(steps, "step") + (f" ({epochs:.4g} epoch{'' if epochs == 1 else 's'})" if epochs else "")


def _best(log: pd.DataFrame, config: Mapping[str, Any], best: Mapping[str, Any]) -> str:
    """Which checkpoint is best and whether the measure has got worse since."""
    kind = _mapping(config, "monitor").get("signal", "loss")
    measured = part(log, "validation")
    if "signal" not in measured or measured["signal"].notna().sum() == 0:
        return ""
    measured = measured[measured["signal"].notna()]
    signal, steps = measured["signal"].to_numpy(np.float64), measured["step"].to_numpy(np.int64)
    where = int(signal.argmin() if kind == "loss" else signal.argmax())
    step, value = int(steps[where]), float(signal[where])
    text = f"The validation {'loss' if kind == 'loss' else f'{kind} score'} was best at step {step:,} ({number(value)})"
    if steps[-1] != step:
        text += f" and was {number(float(signal[-1]))} at the end"
    return text + ("." if best.get("step") is None else f"; the checkpoint of step {int(best['step']):,} is kept as the best.")


def _notices(log: pd.DataFrame, bad_lines: int, summary: Mapping[str, Any], saved: bool) -> list[Notice]:
    alarms = [str(alarm) for alarm in summary.get("alarms") or ()] if summary else _alarms_so_far(log)
    notices = [Notice("warning", alarm) for alarm in alarms]
    if not alarms and len(part(log, "validation")):
        notices.append(Notice("good", "No sign of collapse on the validation subjects."))
    if not len(part(log, "validation")):
        notices.append(Notice("note", "No validation has been logged, so collapse and overfitting cannot be judged."))
    if not summary:
        how = "continue it with --resume" if saved else "no checkpoint was saved, so it has to start again"
        notices.append(Notice("note", f"summary.json is missing: the run is still going on or was interrupted; {how}."))
    wait = last(log, "data_wait")
    if wait is not None and wait > SLOW_LOADING:
        advice = "raise loop.workers or put the cohort on a faster disk"
        notices.append(Notice("note", f"{wait:.0%} of the time went into waiting for data; {advice}."))
    if bad_lines:
        notices.append(Notice("note", f"Left out because unreadable: {plural(bad_lines, 'line')} of log.jsonl."))
    return notices


def _alarms_so_far(log: pd.DataFrame) -> list[str]:
    """For a run without a summary: the clear cases in the last validation. Training itself judges more finely."""
    measured = part(log, "validation")
    alarms = []
    for column in map(str, measured):
        value = last(measured, column)
        if value is None:
            continue
        if column.endswith("effective_rank") and value < 2:
            alarms.append(
                f"{_of(column)}effective rank {value:.1f}: the embeddings have collapsed to a few directions; raise the batch "
                "size, lower the learning rate, or add a vicreg objective"
            )
        elif column.endswith("spread") and value < 0.01:
            alarms.append(
                f"{_of(column)}spread {value:.4f}: all samples are embedded at nearly the same place; lower the "
                "temperature or check that the views of different samples really differ"
            )
    return alarms


def _of(column: str) -> str:
    return f"{column.rpartition('/')[0]}: " if "/" in column else ""


def _methods(
    config: Mapping[str, Any],
    counts: Mapping[str, int],
    environment: Mapping[str, Any],
    log: pd.DataFrame,
    summary: Mapping[str, Any],
) -> str:
    versions = _mapping(environment, "versions")
    tools = listed([f"{name} {versions[name]}" for name in ("ssl4neuro", "torch", "lightly", "nilearn") if name in versions])
    sentences = [f"Encoders were pretrained with {tools or 'ssl4neuro'}."]
    if encoder_words(config):
        sentences.append(f"One encoder per modality ({encoder_words(config)}) was trained with {objective_words(config)}.")
    optimiser, sampling = _mapping(config, "optimiser"), _mapping(config, "sampling")
    if optimiser:
        sentences.append(
            f"Optimiser: {optimiser.get('name')}, peak learning rate {optimiser.get('rate')}, weight decay "
            f"{optimiser.get('weight_decay')}, {optimiser.get('schedule')} schedule, {_progress(log, summary)}, "
            f"batches of {sampling.get('batch_size')} {_unit(sampling)}, seed {environment.get('seed', config.get('seed'))}."
        )
    if counts:
        n = {name: counts.get(name, 0) for name in PARTS}
        sentences.append(
            f"Subjects were divided before training: {n['train']} to train, {n['validation']} to choose the checkpoint, "
            f"{n['holdout']} held out, whom no encoder saw."
        )
    return " ".join(sentences)


def encoder_words(config: Mapping[str, Any]) -> str:
    """`map: volume_resnet (small); course: course_conv`."""
    return "; ".join(
        f"{name}: {_mapping(m, 'encoder').get('name', 'unnamed')}{_preset(_mapping(m, 'encoder'))}"
        for name, m in _mapping(config, "modalities").items()
        if isinstance(m, Mapping)
    )


def objective_words(config: Mapping[str, Any]) -> str:
    """`infonce between map and course (weight 1) and supcon on labels state (weight 1)`."""
    return listed(
        [
            f"{o.get('name')}{_between(o.get('between'))}"
            f"{' on labels ' + listed(list(o['labels'])) if o.get('labels') else ''} (weight {o.get('weight', 1)})"
            for o in _objectives(config).values()
        ]
    )


def _between(modalities: Any) -> str:
    if not isinstance(modalities, list) or not modalities:
        return ""
    return f" within {modalities[0]}" if len(modalities) == 1 else f" between {listed(modalities)}"


def _preset(encoder: Mapping[str, Any]) -> str:
    return f" ({encoder['preset']})" if encoder.get("preset") else ""


def _unit(sampling: Mapping[str, Any]) -> str:
    return {"sessions": "scans", "subjects": "subjects"}.get(str(sampling.get("kind")), "components")


def _without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """Folders by their last name: a report is passed on, and a path says where a hospital keeps its data."""
    return {
        key: Path(value).name if key in {"data", "out"} and isinstance(value, str) else value for key, value in config.items()
    }
