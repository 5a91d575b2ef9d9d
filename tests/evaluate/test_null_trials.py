"""Every test that is shipped on data without effect, few times; 2,000 times in `benchmarks/bench_statistics.py`."""

import numpy as np
import pytest
from null_trials import TRIALS, auc_intervals
from scipy import stats

CHEAP = {
    "paired comparison, AUC",
    "DeLong by subject, difference",
    "equivalence, at the margin",
    "segmentation, sign flips of patients",
}


@pytest.mark.parametrize("name", TRIALS)
def test_false_positives_stay_at_the_nominal_level(name: str) -> None:
    sets = 100 if name in CHEAP else 30
    p = np.array([TRIALS[name].run(1000 + seed) for seed in range(sets)])
    assert (p <= 0.05).sum() <= stats.binom.ppf(0.999, sets, 0.05)
    if not TRIALS[name].upper_only:
        assert p.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / sets))


def test_intervals_cover() -> None:
    found = [auc_intervals(1000 + seed) for seed in range(60)]
    for name in found[0]:
        assert sum(one[name] for one in found) >= stats.binom.ppf(0.001, 60, 0.95)
