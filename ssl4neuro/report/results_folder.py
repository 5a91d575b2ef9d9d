"""A results folder as `probe` leaves it, read for the report: whatever an older version did not write is empty."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from ssl4neuro.errors import UserError
from ssl4neuro.report.folder import read_json, read_tsv

FORMAT, VERSION = "ssl4neuro results", 1
ROW_KEYS = ("name", "metric", "value", "n_subjects", "unit")
LOWER_IS_BETTER = {"MAE", "RMSE"}
NUISANCE_ONLY = "nuisance only"
BLIND = ("majority", "training mean")  # baselines that see no data
TEXT = ("truth", "prediction", "site", "target", "features")  # "01" is a class, and so is "None"
NEEDED = {  # columns without which a table cannot be shown
    "label_efficiency": ("model", "n_train_subjects", "metric", "value"),
    "sites": ("model", "site", "metric", "value"),
    "site_decodability": ("features", "model", "metric", "value"),
    "comparison": ("model", "baseline", "metric", "difference"),
}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """results.json with its tables; `rows` are the numbers, embeddings first."""

    path: Path
    record: Mapping[str, Any]
    rows: Sequence[Row]
    predictions: pd.DataFrame = field(default_factory=pd.DataFrame)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def own(self) -> Row:
        """The number that the report answers with: the first embedding's first metric."""
        return next((row for row in self.rows if not row.get("baseline")), self.rows[0])

    @property
    def nuisance(self) -> Row | None:
        """What motion, age, sex and scanner reach without any image."""
        return next(iter(self._first(NUISANCE_ONLY)), None)

    @property
    def baselines(self) -> list[Row]:
        """Numbers of all baselines that see some data."""
        return [row for row in self.rows if row.get("baseline") and row["name"] not in BLIND]

    @property
    def best_baseline(self) -> Row | None:
        """The baseline of the paired comparison; without one that of the best value, rather not the nuisance-only model."""
        compared = self.compared()
        if compared is not None:
            return next((r for r in self._first(str(compared["baseline"])) if r.get("baseline")), None)
        rows = [r for r in self.baselines if r["metric"] == self.own["metric"] and r["value"] is not None]
        rows = [r for r in rows if r["name"] != NUISANCE_ONLY] or rows
        sign = -1 if self.own["metric"] in LOWER_IS_BETTER else 1
        return max(rows, key=lambda row: sign * row["value"], default=None)

    @property
    def classes(self) -> list[str]:
        """Names of the classes; empty for a regression."""
        return [str(c) for c in self.record.get("classes") or ()]

    @property
    def settings(self) -> Mapping[str, Any]:
        """Folds, repeats, permutations and so on."""
        return _mapping(self.record, "settings")

    @property
    def confounds(self) -> Mapping[str, Any]:
        """Site column, harmonisation and nuisance columns."""
        return _mapping(self.settings, "confounds")

    @property
    def source(self) -> Mapping[str, Any]:
        """Which embeddings were probed."""
        return _mapping(self.record, "source")

    @property
    def environment(self) -> Mapping[str, Any]:
        """Command line and versions."""
        return _mapping(self.record, "environment")

    @property
    def notes(self) -> list[str]:
        """What was left out, and why."""
        return [str(note) for note in self.record.get("notes") or ()]

    def held_out(self, model: str) -> pd.DataFrame:
        """Predictions of one model; empty if they are gone."""
        return self.predictions[self.predictions["model"] == model] if len(self.predictions) else self.predictions

    def compared(self) -> Row | None:
        """The paired difference between the own model and the best baseline, where it was computed."""
        table = self.tables.get("comparison")
        if table is None:
            return None
        same = (table["model"] == self.own["name"]) & (table["metric"] == self.own["metric"])
        return next((plain(row) for row in table[same].to_dict("records")), None)

    def _first(self, name: str) -> list[Row]:
        """Rows of a model in the metric of the answer."""
        return [row for row in self.rows if row["name"] == name and row["metric"] == self.own["metric"]]


def read_results(path: Path) -> Results:
    """Read results.json and the tables it names.

    Raises:
        UserError: damaged, of another version, or a table lacks a column.
    """
    file = path / "results.json"
    record = read_json(file)
    if record.get("format") != FORMAT or record.get("version") != VERSION:
        raise UserError(f"{file}: not {FORMAT} version {VERSION}; make the results again with this version")
    rows = record.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) and all(k in r for k in ROW_KEYS) for r in rows):
        raise UserError(f"{file}: 'rows' is missing or incomplete; make the results again")
    names = [str(name) for name in record.get("tables") or ()]
    tables = {name: _table(path / f"{name}.tsv", NEEDED.get(name, ())) for name in names}
    predictions = _table(path / "predictions.tsv", ("model", "subject", "truth", "prediction"))
    return Results(path, record, rows, predictions, {name: table for name, table in tables.items() if len(table)})


def plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A line of a table with None where there is nothing."""
    return {str(key): None if pd.isna(value) else value for key, value in row.items()}


def _table(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    table = read_tsv(file, TEXT)
    missing = [c for c in columns if c not in table] if len(table.columns) else []
    if missing:
        raise UserError(f"{file}: column '{missing[0]}' is missing; it was cut short or altered, make the results again")
    return table


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}
