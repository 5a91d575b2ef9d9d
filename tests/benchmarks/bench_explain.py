"""Does occlusion find the planted region? The quick start's cohort, whose truth is known, from raw files to region values.

    python tests/benchmarks/bench_explain.py --effect 3 --networks motor vision temporal
    python tests/benchmarks/bench_explain.py --effect 3 --fill zero      # a hole instead of the mean map
    python tests/benchmarks/bench_explain.py --effect 0          # nothing is planted in the data: the AUC is that of brightness

Planted are the regions whose mean effect (post minus pre, `ground_truth/effect_<network>.nii.gz`) is above a quarter of the
largest. Beside the AUC of the region values stands that of brightness alone, the mean |map| of a region: a network's effect
lies within the network, so that a map of the network itself finds it, too. `within` compares among the tenth of the
brightest regions only, where brightness helps less. Minutes for each network on one core.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from ssl4neuro.data.cohort import Cohort
from ssl4neuro.data.grid import image_data, load_image
from ssl4neuro.evaluate.explain import Result, explain
from ssl4neuro.evaluate.explain_parts import ExplainConfig
from ssl4neuro.quickstart import QuickstartConfig, make_data, train


def recovery(result: Result, cohort: Cohort, truth: Path, network: str) -> str:
    """A line for one network."""
    table = result.tables["regions"]
    table = table[table["network"] == network]
    parcels = result.found["map"].parcels
    assert parcels is not None
    assert cohort.mask is not None
    labels = parcels.labels[cohort.mask]
    effect = image_data(load_image(truth / f"effect_{network}.nii.gz"))[cohort.mask]
    maps = cohort.fetch(np.flatnonzero(cohort.index["network"] == network), ("map",))["map"].astype(np.float32)
    mean, bright = (np.array([values[labels == k].mean() for k in table["code"]]) for values in (effect, np.abs(maps.mean(0))))
    planted, value = mean > 0.25 * mean.max(), table["value"].to_numpy()
    inner = bright > np.quantile(bright, 0.9)
    within = roc_auc_score(planted[inner], value[inner]) if 0 < planted[inner].sum() < inner.sum() else np.nan
    best = table.iloc[int(np.argmax(value))]
    is_planted = "planted" if planted[np.argmax(value)] else "not planted"
    return (
        f"{network:9} AUC {roc_auc_score(planted, value):.3f} within {within:.3f}"
        f" brightness {roc_auc_score(planted, bright):.3f} planted {planted.sum()} of {len(planted)};"
        f" largest: {best['region']} ({is_planted}, p corrected {best['p_corrected']:.3f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effect", type=float, default=3.0)
    parser.add_argument("--subjects", type=int, default=40)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--atlas", default="seitzman")
    parser.add_argument("--fill", choices=("mean", "zero"), default="mean")
    parser.add_argument("--networks", nargs="+", default=["motor", "vision", "language", "frontal", "temporal"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out, config = Path(folder), QuickstartConfig(effect=options.effect, seed=options.seed, subjects=options.subjects)
        make_data(out, config)
        train(out, config)
        started = time.monotonic()
        result = explain(
            out / "run", out / "cohort", out / "explain", target="state", method="occlusion", modality=("map",), which="last",
            network=options.networks, config=ExplainConfig(atlas=options.atlas, fill=options.fill), randomisations=0,
        )  # fmt: skip
        passes = len(result.rows.subjects) * len(result.found["map"].parts["region"])
        print(f"{passes} passes in {time.monotonic() - started:.0f} s, figures included")
        skill = result.answers["map"].skill
        for network in options.networks:
            print(recovery(result, Cohort.open(out / "cohort"), out / "data" / "ground_truth", network), end="")
            print(f"; probe AUC {skill[network][1].value:.3f}")


if __name__ == "__main__":
    main()
