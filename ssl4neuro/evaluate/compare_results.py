"""`compare A B` for two results folders of `probe`: is one set of embeddings better on the same held-out rows?"""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ssl4neuro.atomic import write_text
from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.compare import Difference, paired_difference
from ssl4neuro.evaluate.metrics import METRICS, Held, Task
from ssl4neuro.evaluate.predictions import KEYS, held_of
from ssl4neuro.evaluate.results import FORMAT, aligned, number, p_text
from ssl4neuro.evaluate.statistics import constant_within
from ssl4neuro.registry import suggest

# What must not differ, and how it is called
SAME = {"target": "target", "task": "task", "unit": "unit", "classes": "classes of the target"}
SAME_SETTINGS = {"folds": "folds", "repeats": "repeats", "seed": "seed of the folds", "leave_site_out": "leave-site-out"}


@dataclass(frozen=True)
class Model:
    """One model of a results folder."""

    folder: Path
    name: str
    label: str
    record: dict[str, Any]
    frame: pd.DataFrame  # its predictions

    @property
    def classes(self) -> tuple[str, ...]:
        """As the folder lists them."""
        return tuple(map(str, self.record["classes"]))


@dataclass(frozen=True)
class ResultsComparison:
    """Differences of all metrics asked for."""

    target: str
    rows: tuple[Difference, ...]
    stamps: tuple[str, ...]


def compare_results(
    first: Path,
    second: Path,
    *,
    models: tuple[str, ...] = (),
    metric: str | None = None,
    draws: int = 2000,
    permutations: int = 9999,
    seed: int = 0,
) -> ResultsComparison:
    """Paired comparison of two models in results folders that were made with the same rows, labels and folds.

    Args:
        first, second: results folders; the same one twice compares two of its models.
        models: names of the models, one for both folders or one for each; by default each folder's first embedding.
        metric: by default every metric of the task.
        draws: of the bootstrap.
        permutations: exchanges of the models.

    Raises:
        UserError: no results there, unknown model or metric, or a difference between the folders, by name.
    """
    if len(models) > 2:
        raise UserError(f"models: at most two can be compared, got {len(models)}")
    wanted = [models[0], models[-1]] if models else [None, None]
    a, b = (_read(Path(folder), name) for folder, name in zip((first, second), wanted, strict=True))
    if (a.folder.resolve(), a.name) == (b.folder.resolve(), b.name):
        raise UserError(f"{first}: this compares '{a.label}' with itself; name two models with --models")
    if permutations < 1:
        raise UserError(f"permutations: must be at least 1, got {permutations}")
    if a.label == b.label:  # runs/a/probe and runs/b/probe
        a, b = (dataclasses.replace(m, label=f"{m.name} ({m.folder.parent.name}/{m.folder.name})") for m in (a, b))
    _same_questions(a, b, (str(first), str(second)))
    b = dataclasses.replace(b, frame=_paired(a, b, (str(first), str(second))))
    task: Task = a.record["task"]
    chosen = list(METRICS[task]) if metric is None else [metric]
    if chosen[0] not in METRICS[task]:
        raise UserError(f"metric '{metric}': not one of a {task} result ({', '.join(METRICS[task])})")
    helds = [_repeats(model) for model in (a, b)]
    once = a.frame[a.frame["repeat"] == a.frame["repeat"].iloc[0]]
    subjects = np.unique(once["subject"].astype(str).to_numpy(dtype=str), return_inverse=True)[1].astype(np.int64)
    truth = helds[0][0].truth
    strata = truth.astype(np.int64) if a.classes and constant_within(truth, subjects).all() else None
    rows = tuple(
        paired_difference(
            task, name, helds[0], helds[1], subjects, names=(a.label, b.label), strata=strata, draws=draws,
            permutations=permutations, seed=seed,
        )
        for name in chosen
    )  # fmt: skip
    stamps = tuple(f"STAMP {m.label}: {m.record['stamp']}" for m in (a, b) if m.record.get("stamp"))
    return ResultsComparison(str(a.record["target"]), rows, stamps)


def _read(folder: Path, name: str | None) -> Model:
    file = folder / "results.json"
    if (folder / "targets.json").is_file():
        inside = json.loads((folder / "targets.json").read_text(encoding="utf-8"))["folders"]
        raise UserError(f"{folder}: holds several targets; compare one of them, e.g. {folder / inside[0]}")
    if not file.is_file() or not (folder / "predictions.tsv").is_file():
        raise UserError(f"{folder}: no results of 'probe' here (results.json, predictions.tsv); name the folder given to --out")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not valid JSON ({error}); probe again") from error
    if record.get("format") != FORMAT:
        raise UserError(f"{file}: not a results file of 'probe' but '{record.get('format')}'")
    table = pd.read_csv(folder / "predictions.tsv", sep="\t", dtype=str, keep_default_na=False)
    table = table.astype({"repeat": int, "fold": int})
    names = list(dict.fromkeys(table["model"]))
    own = [row["name"] for row in record["rows"] if not row["baseline"]]
    name = name or next(iter(own), names[0])
    if name not in names:
        raise UserError(f"{folder}: no model '{name}'{suggest(name, names)}")
    frame = table[table["model"] == name]
    return Model(folder, name, f"{name} ({folder.name})", record, _sorted(frame))


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(["repeat", *_keys(frame)], kind="stable").reset_index(drop=True)


def _keys(frame: pd.DataFrame) -> list[str]:
    return [key for key in KEYS if key in frame]


def _same_questions(a: Model, b: Model, names: tuple[str, str]) -> None:
    settings = [model.record["settings"] for model in (a, b)]
    pairs = [(told, a.record.get(key), b.record.get(key)) for key, told in SAME.items()]
    pairs += [(told, settings[0].get(key), settings[1].get(key)) for key, told in SAME_SETTINGS.items()]
    for told, mine, other in pairs:
        if mine != other:
            raise UserError(
                f"{told}: {_shown(mine)} in {names[0]}, {_shown(other)} in {names[1]}; a paired test needs the same, so probe"
                " both alike"
            )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _paired(a: Model, b: Model, names: tuple[str, str]) -> pd.DataFrame:
    """The second model's lines in the first one's order, if they are about the same."""
    people = [set(model.frame["subject"]) for model in (a, b)]
    for i in (0, 1):
        lost = sorted(people[i] - people[1 - i])
        if lost:
            raise UserError(
                f"subjects: {len(lost)} of {names[i]} are not in {names[1 - i]} (e.g. {lost[0]}); probe both on the same"
                " subjects"
            )
    rows = [model.frame[["repeat", *_keys(model.frame)]] for model in (a, b)]
    if not rows[0].equals(rows[1]):
        raise UserError(
            f"rows: {names[0]} and {names[1]} hold other scans or components of the subjects; probe both on the same"
        )
    differ = np.flatnonzero((a.frame["truth"] != b.frame["truth"]).to_numpy())
    if len(differ):
        left, right = a.frame.iloc[differ[0]], b.frame.iloc[differ[0]]
        raise UserError(
            f"labels: {len(differ)} rows differ, e.g. subject {left['subject']} is '{left['truth']}' in {names[0]} and"
            f" '{right['truth']}' in {names[1]}; probe both with the same table of labels"
        )
    differ = np.flatnonzero((a.frame["fold"] != b.frame["fold"]).to_numpy())
    if len(differ):
        who = a.frame["subject"].iloc[differ[0]]
        raise UserError(
            f"folds: subject {who} was tested in another fold in {names[1]} than in {names[0]}; the training sets differ, so"
            " probe both with the same sites and seed"
        )
    return b.frame


def _repeats(model: Model) -> list[Held]:
    return [held_of(part, model.classes) for _, part in model.frame.groupby("repeat", sort=True)]


def render(found: ResultsComparison) -> str:
    """Plain text for the terminal."""
    first = found.rows[0]
    cells = [["metric", first.model, first.other, "difference", "95 % CI", "p", "p DeLong"]]
    for row in found.rows:
        between = f"{row.ci_low:+.3f} to {row.ci_high:+.3f}" if math.isfinite(row.ci_low) else "-"
        cells.append([
            row.metric, number(row.value), number(row.value_other), f"{row.difference:+.3f}", between, p_text(row.p),
            p_text(row.p_delong),
        ])  # fmt: skip
    exchanged = "all exchanges" if first.exact else "random exchanges"
    return "\n".join([
        f"'{found.target}' from {first.model} and from {first.other}: {first.n_subjects} subjects, {first.n_samples} rows",
        "",
        *aligned(cells),
        "",
        *found.stamps,
        f"Interval: bootstrap of subjects, both models alike. p: two-sided, the models' answers exchanged subject by subject"
        f" ({exchanged}, the trained models fixed).",
    ])  # fmt: skip


def write(found: ResultsComparison, out: Path) -> Path:
    """As JSON; numbers that do not exist are null.

    Raises:
        UserError: `out` exists.
    """
    if out.exists():
        raise UserError(f"{out}: exists already; name another file or delete it")
    rows = [
        {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in dataclasses.asdict(row).items()}
        for row in found.rows
    ]
    record = {
        "format": "ssl4neuro comparison",
        "version": 1,
        "target": found.target,
        "stamps": list(found.stamps),
        "rows": rows,
    }
    write_text(out, json.dumps(record, indent=1, allow_nan=False))
    return out
