"""False-positive rate, null mean and speed of the probe: `python tests/benchmarks/bench_probe_null.py [trials]`.

Features with subject effects and labels without relation to them, in the designs that users have. Expected: 3.4-6.7 % of
p-values at or below 0.05 with 2,000 trials (less for discrete statistics of few subjects), mean AUC 0.5.
The speed of a refitted permutation test is compared with scikit-learn's logistic regression in the same run.
"""

import sys
import time

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl4neuro.evaluate.probe import probe_arrays

DESIGNS = (  # name, subjects, sessions, features, folds, probe, seen
    ("between", 20, 1, 10, 5, "linear", 0),
    ("between", 20, 1, 10, 20, "linear", 0),
    ("between", 20, 2, 60, 5, "linear", 0),
    ("between", 20, 1, 10, 5, "knn", 0),
    ("between", 30, 1, 10, 5, "linear", 14),
    ("within", 20, 2, 20, 5, "linear", 0),
    ("regression", 20, 1, 10, 5, "linear", 0),
)


def null_trial(
    design: str, subjects: int, sessions: int, features: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, labels and subjects of one cohort without effect."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(subjects), sessions)
    x = np.repeat(rng.normal(size=(subjects, features)), sessions, axis=0) + rng.normal(size=(len(who), features))
    labels = {
        "between": rng.permutation(np.arange(subjects) % 2)[who],
        "within": np.arange(len(who)) % 2,
        "regression": rng.normal(size=subjects)[who],
    }
    return x.astype(np.float32), labels[design], who


def false_positives(trials: int) -> None:
    """One line per design."""
    for design, subjects, sessions, features, folds, probe, seen in DESIGNS:
        rows = []
        for seed in range(trials):
            x, y, who = null_trial(design, subjects, sessions, features, seed)
            try:
                result = probe_arrays(
                    {"x": x}, y, who, seen=who < seen, folds=folds, probe=probe, permutations=99, bootstrap=0, seed=seed,
                    task="regression" if design == "regression" else None,
                )  # fmt: skip
            except ValueError as error:
                raise SystemExit(f"{design} seed {seed}: {error}") from error
            rows.append([(row.value, row.p) for row in result.rows if row.name == "x"])
            metrics = [row.metric for row in result.rows if row.name == "x"]
        values, ps = np.array(rows).transpose(2, 0, 1)
        told = ", ".join(
            f"{m} mean {v:.3f} FPR {100 * r:.1f} %"
            for m, v, r in zip(metrics, values.mean(0), (ps <= 0.05).mean(0), strict=True)
        )
        print(
            f"{design}, {subjects} subjects x {sessions}, {features} features, {folds} folds, {probe}, {seen} seen: {told}",
            flush=True,
        )


def speed(permutations: int = 1000) -> None:
    """200 subjects × 2 sessions × 256 features, penalty chosen in every permutation."""
    x, y, who = null_trial("between", 200, 2, 256, 0)
    started = time.perf_counter()
    probe_arrays({"x": x}, y, who, permutations=permutations, bootstrap=0)
    ours = time.perf_counter() - started
    started = time.perf_counter()
    few = 3
    for _ in range(few):  # one penalty only, five folds
        for fold in range(5):
            train = who % 5 != fold
            make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=1000)).fit(x[train], y[train])
    reference = (time.perf_counter() - started) / few * permutations
    print(
        f"{permutations} refitted permutations: {ours:.1f} s with a nested choice of 8 penalties; scikit-learn logistic,"
        f" one penalty, {reference:.1f} s (extrapolated from {few}); ratio {reference / ours:.1f}"
    )


if __name__ == "__main__":
    speed()
    false_positives(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
