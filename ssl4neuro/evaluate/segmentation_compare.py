"""Two models on the same scans: is one better, with patients as the unit?

The scans of one patient share anatomy, contrast and observer, so a test that takes them for independent rejects far too often.
Differences are averaged within patients first. Under the null hypothesis a patient's difference is as likely to have the
other sign: the permutation test flips signs, all 2^n of them where there are few patients.
"""

import math
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from ssl4neuro.errors import UserError
from ssl4neuro.evaluate.segmentation import DISTANCES, OVERLAP, SCAN, STACK, checked, numbered, patients
from ssl4neuro.evaluate.statistics import bootstrap_interval, p_value
from ssl4neuro.registry import suggest

METRICS = (*OVERLAP, *DISTANCES, "dice_3d")
ENUMERATED = 12  # patients up to which all sign flips are tried


@dataclass(frozen=True)
class Comparison:
    """Difference a - b of a positives-only score."""

    a: str
    b: str
    structure: str
    metric: str
    unit: Literal["patient", "scan"]  # what weighs the same in the means; the tests' unit is the patient in both cases
    mean_a: float
    mean_b: float
    difference: float
    ci_low: float  # 95 %, bootstrap of patients
    ci_high: float
    p_permutation: float  # two-sided, sign flips of patients
    exact: bool  # all sign flips, not a sample of them
    p_wilcoxon: float  # two-sided signed-rank test of patient means
    p_wilcoxon_scans: float  # the same over scans as if they were independent: too small
    n_patients: int
    n_scans: int  # for dice_3d: stacks
    dropped: int  # scans on which the metric is undefined for one of the two

    @property
    def lower_is_better(self) -> bool:
        """Distances, not overlaps."""
        return self.metric in DISTANCES


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    structure: str,
    metric: str = "dice",
    unit: Literal["patient", "scan"] = "patient",
    draws: int = 2000,
    permutations: int = 9999,
    seed: int = 0,
) -> Comparison:
    """Compare two models, each given by its table of scans (`evaluate.segmentation`).

    Args:
        metric: dice, jaccard, precision, recall, hd95, hsd of scans that show the structure, or dice_3d of stacks.
        unit: patients weigh the same, or scans do. A patient's scans flip and are resampled together in both cases.
        draws: of the bootstrap.
        permutations: sign flips that are drawn where there are more than 12 patients.

    Raises:
        UserError: unknown structure or metric, several models in one table, a scan that one of them lacks, different truths.
    """
    if metric not in METRICS:
        raise UserError(
            f"metric '{metric}': not one that is compared{suggest(metric, METRICS)}; choose from {', '.join(METRICS)}"
        )
    names, tables = zip(*(_of(table, which, structure) for table, which in ((a, "first"), (b, "second"))), strict=True)
    pairs = _paired(tables[0], tables[1], metric, names)
    defined = pairs[np.isfinite(pairs[["a", "b"]]).all(axis=1)]
    if defined.empty:
        raise UserError(f"metric '{metric}': undefined for one of the models on every scan that shows '{structure}'")
    parts = defined.assign(n=1.0).groupby("subject", sort=True)[["a", "b", "n"]].sum()
    n = parts["n"].to_numpy()
    size = n if unit == "scan" else np.ones_like(n)
    scores = parts[["a", "b"]].to_numpy() / n[:, None]  # patient means
    gain = (scores[:, 0] - scores[:, 1]) * size  # of each patient, weighted
    interval = bootstrap_interval(lambda w: w @ gain / (w @ size), np.arange(len(gain)), draws=draws, seed=seed)
    p, exact = sign_flip_p(gain, permutations, seed)
    mean_a, mean_b = (float(value) for value in size @ scores / size.sum())
    over_scans = wilcoxon_p((defined["a"] - defined["b"]).to_numpy())
    return Comparison(
        names[0], names[1], structure, metric, unit, mean_a, mean_b, interval.value, interval.low, interval.high, p, exact,
        wilcoxon_p(scores[:, 0] - scores[:, 1]), over_scans, len(parts), len(defined), len(pairs) - len(defined),
    )  # fmt: skip


def sign_flip_p(gain: Float[np.ndarray, "patients"], permutations: int, seed: int) -> tuple[float, bool]:
    """Two-sided p-value of the summed differences when each may have either sign, and whether all flips were tried."""
    exact = len(gain) <= ENUMERATED
    if exact:
        signs = np.array(list(product((1.0, -1.0), repeat=len(gain))))[1:]  # the first is the observation itself
    else:
        signs = np.random.default_rng([seed, 0x51C4]).choice([-1.0, 1.0], size=(permutations, len(gain)))
    return p_value(abs(float(gain.sum())), np.abs(signs @ gain)), exact


def wilcoxon_p(difference: Float[np.ndarray, "pairs"]) -> float:
    """Two-sided signed-rank test; 1 where nothing differs."""
    if not np.abs(difference).max() > 1e-12:
        return 1.0
    return float(stats.wilcoxon(difference).pvalue)


def render(found: Comparison) -> str:
    """For the terminal."""
    better = "lower is better" if found.lower_is_better else "higher is better"
    unit = "stacks" if found.metric == "dice_3d" else "scans"
    flips = "all sign flips" if found.exact else "random sign flips"
    lines = [
        f"{found.metric} of '{found.structure}', positives only ({better}):"
        f" mean over {'patients' if found.unit == 'patient' else unit}",
        f"  {found.a}: {_number(found.mean_a)}",
        f"  {found.b}: {_number(found.mean_b)}",
        f"  difference {found.difference:+.3f} (95 % CI {_number(found.ci_low)} to {_number(found.ci_high)},"
        f" bootstrap of patients)",
        f"  {found.n_patients} patients, {found.n_scans} {unit}"
        + (f"; {found.dropped} {unit} left out, undefined for one of the two" if found.dropped else ""),
        f"  p {_number(found.p_permutation, 4)}  permutation test over patients ({flips})",
        f"  p {_number(found.p_wilcoxon, 4)}  Wilcoxon signed-rank test over patients",
        f"  p {_number(found.p_wilcoxon_scans, 4)}  the same over {unit} as if independent: optimistic, do not report alone",
    ]
    return "\n".join(lines)


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "-"


def _of(table: pd.DataFrame, which: str, structure: str) -> tuple[str, pd.DataFrame]:
    """The model's name and its scans of the structure."""
    checked(table)
    models = table["model"].unique().tolist()
    if len(models) > 1:
        raise UserError(f"{which} table: holds {len(models)} models ({', '.join(map(str, models))}); choose one to compare")
    names = table["structure"].unique().tolist()
    if structure not in names:
        raise UserError(f"{which} table: no structure '{structure}'{suggest(structure, names)}; there are {', '.join(names)}")
    return str(models[0]), table[table["structure"] == structure]


def _paired(a: pd.DataFrame, b: pd.DataFrame, metric: str, names: tuple[str, ...]) -> pd.DataFrame:
    """Lines that show the structure, with both models' scores in columns `a` and `b`."""
    keys = [*SCAN, "phase", "repeat"]
    a, b = (numbered(table).set_index(keys) for table in (a, b))
    for mine, other, name in ((a, b, names[1]), (b, a, names[0])):
        missing = mine.index.difference(other.index)
        if len(missing):
            raise UserError(
                f"{_place(missing[0])}: not among the scans of '{name}' ({len(missing)} missing); compare on the same scans"
            )
    b = b.loc[a.index]
    differ = a.index[((a["tp"] + a["fn"]) != (b["tp"] + b["fn"])).to_numpy()]
    if len(differ):
        raise UserError(f"{_place(differ[0])}: the models were scored against different masks; score both on the same cohort")
    if metric == "dice_3d":
        keys = [*STACK, "phase"]
        a, b = (patients(table.reset_index()).set_index(keys) for table in (a, b))
        b = b.loc[a.index]
    shown = a["positive"].to_numpy(dtype=bool)
    return pd.DataFrame({"a": a[metric], "b": b[metric]})[shown].reset_index()


def _place(key: tuple) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip((*SCAN, "phase"), key, strict=False) if str(value) != "")
