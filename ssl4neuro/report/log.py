"""What a training log shows: its curves as figures, and the values that sentences need."""

import numpy as np
import pandas as pd

from ssl4neuro.report import figures
from ssl4neuro.report.page import Figure

BOOKKEEPING = {"time", "step", "epoch", "split", "lr", "samples_per_s", "data_wait", "signal", "alignment", "retrieval", "knn"}
MONITORS = ("effective_rank", "uniformity", "spread", "alignment", "anchors", "temperature")


def run_figures(log: pd.DataFrame, best: int | None) -> list[Figure]:
    """Loss and terms, collapse measures, online scores, learning rate, speed: those that were logged."""
    terms = [c for c in map(str, log) if c not in BOOKKEEPING and not c.endswith(MONITORS) and c != "loss"]
    # an objective with a single loss repeats the total
    total = curve(log, "train", "loss")
    terms = [t for t in terms if total is None or not _same(total, curve(log, "train", t))]
    found = []
    for column in ["loss", *sorted(terms)]:
        series = {name: curve(log, name, column) for name in ("train", "validation")}
        title = "Loss" if column == "loss" else column.replace("/", ": ").replace("_", " ")
        found.append((title, series, "total loss" if column == "loss" else column.rpartition("/")[2].replace("_", " "), ""))
    for suffix, caption in (
        ("effective_rank", "How many directions the embeddings use; near 1 they have collapsed."),
        ("uniformity", "0 when all samples sit at one place, about −4 when spread evenly."),
        ("alignment", "Mean squared distance of true pairs; 2 for unrelated ones, 0 at best."),
    ):
        series = {c.rpartition("/")[0] or suffix: curve(log, "validation", c) for c in map(str, log) if c.endswith(suffix)}
        found.append((suffix.replace("_", " ").capitalize(), series, suffix.replace("_", " "), caption))
    scores = {"cross-modal retrieval, top 1": curve(log, "validation", "retrieval"), "kNN": curve(log, "validation", "knn")}
    found.append(("Online scores", scores, "score", "On validation subjects; kNN: balanced accuracy."))
    found.append(("Learning rate", {"learning rate": curve(log, "train", "lr")}, "learning rate", ""))
    speed = {"samples/s": curve(log, "train", "samples_per_s")}
    found.append(("Throughput", speed, "samples/s", "Mean since the start or the last resume."))
    pages = []
    for title, series, ylabel, caption in found:
        kept = {name: found_curve for name, found_curve in series.items() if found_curve is not None}
        if kept:
            mark = best if title == "Loss" else None
            pages.append(Figure(title, figures.curves(kept, ylabel, best=mark), caption))
    return pages


def part(log: pd.DataFrame, name: str) -> pd.DataFrame:
    """Lines of one split, `train` or `validation`, with the columns that it logs."""
    return log[log["split"] == name].dropna(axis="columns", how="all") if "split" in log else log.iloc[:0]


def curve(log: pd.DataFrame, name: str, column: str) -> figures.Curve | None:
    """Steps and finite values of one column, None if it was never logged."""
    rows = part(log, name)
    if column not in rows:
        return None
    y = pd.to_numeric(rows[column], errors="coerce").to_numpy(np.float64)
    x = rows["step"].to_numpy(np.float64)
    finite = np.isfinite(y)
    return (x[finite], y[finite]) if finite.any() else None


def _same(a: figures.Curve, b: figures.Curve | None) -> bool:
    return b is not None and len(a[1]) == len(b[1]) and bool(np.allclose(a[1], b[1], rtol=1e-6))


def last(log: pd.DataFrame, column: str) -> float | None:
    """Latest value of a column, None if it was never logged."""
    values = pd.to_numeric(log[column], errors="coerce").dropna() if column in log else pd.Series(dtype=float)
    return float(values.iloc[-1]) if len(values) else None
