"""How often the leak audit flags a study without a leak, and how long it takes for 1,000 scans.

Run: `python tests/benchmarks/bench_leaks.py [--studies 200]`.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parents[1] / "leaks"))

from leak_nulls import null_audit

from ssl4neuro.evaluate.audit import audit
from ssl4neuro.evaluate.crossval import Candidate, Settings
from ssl4neuro.evaluate.features import ArrayFeatures
from ssl4neuro.evaluate.linear import LinearProbe
from ssl4neuro.evaluate.problem import pose


def false_flags(studies: int) -> None:
    """Family-wise: a study counts once, however many of its checks are flagged."""
    flagged: Counter[str] = Counter()
    opened: Counter[str] = Counter()
    wrong = checks = 0
    for seed in range(studies):
        found = null_audit(seed)
        own = [check for check in found if check.status == "flagged"]
        flagged.update(check.name for check in own)
        opened.update(check.name for check in found if "chance may do that" in check.detail)
        wrong, checks = wrong + bool(own), checks + len(found)
        for check in own:
            print(f"  seed {seed}: {check.name}: {check.detail}")
    interval = binomtest(wrong, studies).proportion_ci()
    print(
        f"false flags: {wrong} of {studies} studies ({wrong / studies:.1%}, 95 % CI {interval.low:.1%} to {interval.high:.1%})"
    )
    print(f"             {sum(flagged.values())} of {checks} checks; left open for chance: {sum(opened.values())}")


def speed(scans: int = 1000) -> None:
    """256 features, six sites."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"subject": [f"sub-{i:04d}" for i in range(scans)], "session": "", "run": ""})
    table = table.assign(
        site=rng.choice(list("abcdef"), scans), age=rng.normal(50, 10, scans), sex=rng.choice(["F", "M"], scans)
    )
    table = table.assign(n_volumes=rng.integers(100, 300, scans), group=rng.choice(["control", "patient"], scans))
    for name, leaky in (("clean", False), ("site and length leak", True)):
        told = (table["group"] == "patient").to_numpy()
        own = (
            table.assign(site=np.where(told ^ (rng.random(scans) < 0.02), "a", "b"), n_volumes=table["n_volumes"] + 300 * told)
            if leaky
            else table
        )
        problem = pose(own, own["group"], "group", "subject", site="site")
        features = ArrayFeatures(rng.normal(size=(scans, 256)).astype(np.float32)[problem.kept])
        start = time.process_time()
        audit(problem, [Candidate("joint", features, LinearProbe())], Settings())
        print(f"{name}: {time.process_time() - start:.2f} s of CPU for {scans} scans")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--studies", type=int, default=200)
    speed()
    false_flags(parser.parse_args().studies)
