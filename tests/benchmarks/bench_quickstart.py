"""The quick start's result over many simulated cohorts: state AUC on held-out subjects beside its baselines and the oracle.

    python tests/benchmarks/bench_quickstart.py --seeds 3 4 5 6 7            # with the effect
    python tests/benchmarks/bench_quickstart.py --seeds $(seq 0 19) --effect 0   # null cohorts: the mean must be 0.5 ± 0.03

The whole path runs anew for each seed: simulate, prepare, pretrain, embed, probe.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from ssl4neuro.evaluate.probe import probe
from ssl4neuro.quickstart import QuickstartConfig, embed_all, make_data, train

MODELS = ("joint", "map", "course", "PCA + logistic", "band power + logistic", "FNC + logistic", "nuisance only")


def one(seed: int, effect: float, subjects: int) -> dict[str, float]:
    """AUC of every model for one cohort."""
    with tempfile.TemporaryDirectory() as folder:
        out, config = Path(folder), QuickstartConfig(effect=effect, seed=seed, subjects=subjects)
        make_data(out, config)
        train(out, config)
        embed_all(out)
        result = probe(out / "embeddings", target="state", out=None, unit="session", column="all", permutations=0, bootstrap=0)
        found = {name: result.row(name, "AUC").value for name in MODELS}
        truth = json.loads((out / "data" / "ground_truth" / "truth.json").read_text())
        return found | {"oracle": truth["difficulty"]["oracle"]["session"]["auc"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 4, 5, 6, 7])
    parser.add_argument("--effect", type=float, default=1.0)
    parser.add_argument("--subjects", type=int, default=40)
    options = parser.parse_args()
    found = []
    for seed in options.seeds:
        started = time.monotonic()
        found.append(one(seed, options.effect, options.subjects))
        text = "  ".join(f"{name} {value:.3f}" for name, value in found[-1].items())
        print(f"seed {seed}: {text}  ({time.monotonic() - started:.0f} s)", flush=True)
    for name in found[0]:
        values = np.array([row[name] for row in found])
        error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        print(f"{name:24} mean {values.mean():.3f} (standard error {error:.3f}, n = {len(values)} cohorts)")


if __name__ == "__main__":
    main()
