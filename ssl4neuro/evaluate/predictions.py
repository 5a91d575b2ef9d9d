"""Held-out predictions as a table, one line per tested row and repeat: what `predictions.tsv` of a results folder holds."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int

from ssl4neuro.evaluate.metrics import Held
from ssl4neuro.evaluate.problem import Problem

KEYS = ("subject", "session", "run", "row", "component")  # what names a row


def prediction_frame(
    problem: Problem, model: str, repeat: int, fold: Int[np.ndarray, "tested"], rows: Int[np.ndarray, "tested"], held: Held
) -> pd.DataFrame:
    """Columns model, repeat, fold, the row's names, seen, site, truth, prediction, `score CLASS`, `probability CLASS`.

    Scores carry no intercept (see `protocol.Scores`), so that those of different folds may be ranked together; probabilities
    are the fitted model's own, NaN where it has none.
    """
    columns: dict[str, Any] = {"model": model, "repeat": repeat, "fold": fold}
    columns |= {key: problem.table[key].to_numpy()[rows] for key in (*KEYS, "seen") if key in problem.table}
    if problem.site_names is not None:
        columns["site"] = problem.site_names[rows]
    if not problem.classes:
        return pd.DataFrame(columns | {"truth": held.truth, "prediction": held.decision, "score": held.values[:, 0]})
    names = np.array(problem.classes, dtype=object)
    columns |= {"truth": names[held.truth.astype(int)], "prediction": names[held.decision.astype(int)]}
    shown = problem.classes if held.values.shape[1] > 1 else problem.classes[1:]
    columns |= {f"score {label}": held.values[:, i] for i, label in enumerate(shown)}
    for label, values in zip(problem.classes, _probabilities(held, len(names)), strict=True):
        columns[f"probability {label}"] = values
    return pd.DataFrame(columns)


def _probabilities(held: Held, classes: int) -> np.ndarray:
    """[classes, rows]"""
    if held.probability is None:
        return np.full((classes, len(held.truth)), np.nan)
    return np.stack([1 - held.probability[:, 0], held.probability[:, 0]]) if classes == 2 else held.probability.T


def held_of(frame: pd.DataFrame, classes: tuple[str, ...]) -> Held:
    """The predictions of one model and repeat, read back."""
    scores = [name for name in frame if name == "score" or str(name).startswith("score ")]
    values = frame[scores].to_numpy(dtype=np.float64)
    if not classes:
        return Held(frame["truth"].to_numpy(dtype=np.float64), values, frame["prediction"].to_numpy(dtype=np.float64))
    code = {name: i for i, name in enumerate(classes)}
    truth, decision = (frame[name].astype(str).map(code).to_numpy() for name in ("truth", "prediction"))
    return Held(truth.astype(np.float64), values, decision.astype(np.int64))
