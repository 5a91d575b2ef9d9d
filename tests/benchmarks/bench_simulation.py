"""Calibration of `simulate ica`: oracle and PCA + logistic regression over many seeds, and the time for one cohort.

python tests/benchmarks/bench_simulation.py [--seeds 20] [--subjects 40] [--effect 1.0]
"""

import argparse
import time

import numpy as np

from ssl4neuro.simulate.cohort import IcaSettings, SimulatedCohort
from ssl4neuro.simulate.difficulty import Difficulty

ROWS = ("oracle", "pca_logistic", "pca_logistic_with_spectra", "nuisance_logistic")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--subjects", type=int, default=40)
    parser.add_argument("--effect", type=float, default=1.0)
    options = parser.parse_args()
    found, identified, started = {row: [] for row in ROWS}, [], time.perf_counter()
    for seed in range(options.seeds):
        cohort = SimulatedCohort(IcaSettings(subjects=options.subjects, seed=seed, effect=options.effect))
        difficulty = Difficulty(cohort)
        for _, scans in cohort:
            for scan in scans:
                difficulty.add(scan)
        numbers = difficulty.numbers()
        for row in ROWS:
            found[row].append([numbers[row][unit]["auc"] for unit in ("session", "cell") if unit in numbers[row]])
        identified.append(numbers["fnc_identification"])
    print(f"{options.seeds} cohorts of {options.subjects} subjects; normal theory expects {numbers['expected_oracle']:.3f}")
    for row in ROWS:
        mean, sd = np.mean(found[row], axis=0), np.std(found[row], axis=0)
        parts = zip(("session", "cell"), mean, sd, strict=False)  # nuisances have no value per cell
        print(f"{row:28s}" + "   ".join(f"{unit} {m:.3f} (sd {s:.3f})" for unit, m, s in parts))
    print(f"identification from FNC      {np.mean(identified):.3f}, chance {1 / options.subjects:.3f}")
    print(f"{(time.perf_counter() - started) / options.seeds:.1f} s per cohort, without writing")


if __name__ == "__main__":
    main()
