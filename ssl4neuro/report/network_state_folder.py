"""The files of a network-state study, as its report needs them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.network_state.items import WHOLE
from ssl4neuro.evaluate.network_state.study import RECORD, read_scores
from ssl4neuro.evaluate.network_state.write import FORMAT, RECOVERY, read_study
from ssl4neuro.report.folder import read_config, read_json

RESULTS = "results"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class StudyFolder:
    """RUN/results of a study, and what is at hand of the run around it.

    Attributes:
        results: folder with results.json.
        run: the folder above; the same where results were moved.
        record: results.json.
    """

    results: Path
    run: Path
    record: dict[str, Any]

    @property
    def rows(self) -> list[Row]:
        """Of all models."""
        return list(self.record["rows"])

    @property
    def model(self) -> str:
        """The study's own."""
        return str(self.record["model"])

    @property
    def networks(self) -> list[str]:
        """In order, without the whole brain."""
        return list(dict.fromkeys(r["network"] for r in self.rows if r["model"] == self.model and r["network"] != WHOLE))

    @property
    def after(self) -> str:
        """The later state, the positive class."""
        return str(self.record["settings"]["after"])

    @property
    def before(self) -> str:
        """The earlier one."""
        return next((s for s in self.scores["state"].unique() if s != self.after), "before")

    @property
    def study(self) -> Mapping[str, Any]:
        """What the training wrote about itself."""
        found = self.record.get("study")
        return found if isinstance(found, Mapping) else {}

    def row(self, network: str, metric: str, model: str = "") -> Row | None:
        """One number, None where there is none."""
        wanted = (network, metric, model or self.model)
        return next((r for r in self.rows if (r["network"], r["metric"], r["model"]) == wanted), None)

    @property
    def differences(self) -> list[Row]:
        """Paired, in AUC, of the study's model to the others; none in results of earlier versions."""
        return list(self.record.get("differences") or ())

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions and command of the run."""
        return read_json(self.run / "environment.json")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved recipe."""
        return read_config(self.run / "config.yaml")

    @cached_property
    def scores(self) -> pd.DataFrame:
        """Held-out scores of all models."""
        return self._table("scores.tsv")

    @cached_property
    def recovery(self) -> pd.DataFrame:
        """One line per subject and network."""
        return self._table(f"{RECOVERY}.tsv")

    @cached_property
    def embeddings(self) -> pd.DataFrame:
        """Held-out components; empty where the file is missing."""
        file = self.results / "embeddings.parquet"
        if not file.is_file():
            return pd.DataFrame()
        try:
            return pd.read_parquet(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: damaged ({str(error).splitlines()[0]}); restore it or delete it") from error

    def _table(self, name: str) -> pd.DataFrame:
        file = self.results / name
        try:
            return read_scores(file)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: missing or damaged; make the results again with --resume") from error


def is_network_state(path: Path) -> bool:
    """Whether the folder is a network-state study or its results."""
    return _results_in(path) is not None or read_config(path / "config.yaml").get("task") == "network_state"


def read_folder(path: Path) -> StudyFolder:
    """The study in RUN or RUN/results.

    Raises:
        UserError: the study is not finished, or its results are damaged.
    """
    results = _results_in(path)
    if results is None:
        done = len(list(path.glob(f"repeat-*/fold-*/{RECORD}")))
        raise UserError(f"{path}: this study is not finished ({done} folds are); continue it with --resume")
    record = read_study(results)
    if not record.get("rows") or not record.get("settings"):
        raise UserError(f"{results / 'results.json'}: 'rows' or 'settings' is missing; make the results again with --resume")
    return StudyFolder(results, results.parent if results.name == RESULTS else results, record)


def _results_in(path: Path) -> Path | None:
    for folder in (path, path / RESULTS):
        try:
            record = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("format") == FORMAT:
            return folder
    return None
