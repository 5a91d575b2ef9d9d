"""Do the tests keep their level and the intervals their coverage, and what does a permutation cost?

`python tests/benchmarks/bench_statistics.py [sets]`, 2,000 by default, some ten minutes on one core. Every test that is shipped
meets data without the effect that it looks for. Expected at a nominal 5 %: 3.4 to 6.7 % false positives in 2,000 data
sets; where a statistic takes few values only the upper bound holds. Speed is compared with scikit-learn in the same run.
"""

import itertools
import sys
import time
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ssl4neuro.evaluate.crossval import Candidate, Settings, evaluate
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.linear import PENALTIES, RidgeProbe
from ssl4neuro.evaluate.probe import probe_arrays

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluate"))
from null_trials import TRIALS, auc_intervals, features_of, problem_of


def false_positives(sets: int) -> None:
    """One line per test."""
    low, high = stats.binom.ppf([0.0005, 0.9995], sets, 0.05) / sets
    print(f"False positives at 5 % in {sets} data sets (99.9 % of honest tests: {100 * low:.1f} to {100 * high:.1f} %)")
    for name, trial in TRIALS.items():
        rate = float(np.mean([trial.run(seed) <= 0.05 for seed in range(sets)]))
        held = rate <= high and (trial.upper_only or rate >= low)
        print(
            f"  {name:48s} {100 * rate:5.2f} %  {'ok' if held else 'OUTSIDE'}{' (upper bound)' * trial.upper_only}", flush=True
        )


def coverage(sets: int) -> None:
    """Of 95 % intervals, 30 subjects with two rows each."""
    found = [auc_intervals(seed) for seed in range(sets)]
    print(f"Coverage of 95 % intervals in {sets} data sets")
    for name in found[0]:
        print(f"  {name:48s} {100 * np.mean([one[name] for one in found]):5.2f} %")


def power(sets: int, effect: float) -> None:
    """Ten subjects: 999 random permutations against all 252 arrangements."""
    found = []
    for seed in range(sets):
        rng, who = np.random.default_rng([seed, 20]), np.arange(10)
        y = (who % 2).astype(float)
        x = features_of(who, 3, rng)
        x[:, 0] += effect * y
        problem, candidate = problem_of(y, who), [Candidate("x", ArrayFeatures(x), RidgeProbe())]
        chosen = [c for c in itertools.combinations(range(10), 5) if c != (1, 3, 5, 7, 9)]
        every = np.concatenate([y[:, None], np.stack([np.isin(who, c) for c in chosen], axis=1)], axis=1).astype(float)
        settings = Settings(permutations=999, bootstrap=0, seed=seed)
        drawn = evaluate(problem, candidate, settings)[0][0].rows[0].p
        exact = evaluate(problem, candidate, settings, labels=(every, "all"))[0][0].rows[0].p
        found.append((exact, drawn))
    p = np.array(found, dtype=float)
    rates = (p <= 0.05).mean(0)
    print(
        f"Power at 5 %, 5 against 5 subjects, effect {effect} SD, {sets} data sets: exact test {100 * rates[0]:.1f} %,"
        f" 999 random permutations {100 * rates[1]:.1f} %; largest difference of p {np.abs(p[:, 0] - p[:, 1]).max():.3f}"
    )


def speed(permutations: int = 10_000) -> None:
    """200 subjects × 2 sessions × 256 features, five folds, penalty chosen in every permutation and fold."""
    rng, who = np.random.default_rng(0), np.repeat(np.arange(200), 2)
    x = features_of(who, 256, rng)
    labels = {"regression": rng.normal(size=200)[who], "binary": rng.permutation(np.arange(200) % 2)[who]}
    for name, task, probe in (("ridge", "regression", "ridge"), ("ridge", "binary", "ridge"), ("logistic", "binary", "linear")):
        y, best = labels[task], []
        for _ in range(3):
            started, cpu = time.perf_counter(), time.process_time()
            probe_arrays(
                {"x": x}, y, who, permutations=permutations, bootstrap=0, probe=probe,
                task="regression" if task == "regression" else None,
            )  # fmt: skip
            best.append((time.perf_counter() - started, time.process_time() - cpu))
        wall, cpu = min(best)
        model = LogisticRegression(C=1e-3) if name == "logistic" else RidgeCV(PENALTIES)
        started, few = time.perf_counter(), 5
        for _ in range(few):
            for fold in range(5):
                train = who % 5 != fold
                fitted = make_pipeline(StandardScaler(), model).fit(x[train], y[train])
                fitted.predict(x[~train])
        reference = (time.perf_counter() - started) / few * permutations
        told = "one penalty" if name == "logistic" else "generalised cross-validation of 8 penalties"
        print(
            f"{permutations} permutations, {name}, {task}: {wall:.2f} s ({cpu:.2f} s of CPU), nested choice of 8 penalties and"
            f" all metrics; scikit-learn, {told}, no metrics: {reference:.0f} s (extrapolated from {few});"
            f" ratio {reference / wall:.0f}",
            flush=True,
        )


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    speed()
    power(min(count, 400), 3.0)
    coverage(count)
    false_positives(count)
