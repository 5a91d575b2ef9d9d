"""The cine phantom: what frozen embeddings know of ejection fraction and of hypokinesia, on hearts that the encoder never saw.

    python tests/benchmarks/bench_phantom.py --work DIR [--recipe cine_contrastive] [--subjects 60] [--flags="--loop.epochs 60"]

An encoder is pretrained on one phantom cohort and probed on two others (other seeds): `ef` (R2, mean absolute error in points)
in the five groups, `hypokinesia` (AUC over subjects) among hearts that differ in nothing else. Beside it the same network
untrained, and the baselines of every probe, PCA of the mean and the standard-deviation image among them.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from ssl4neuro.data.prepare_clips import prepare_clips
from ssl4neuro.evaluate.embed import embed
from ssl4neuro.evaluate.probe import probe
from ssl4neuro.simulate.cine import simulate_cine
from ssl4neuro.simulate.cine_settings import CineSettings

FROZEN = ["--loop.epochs", "1", "--optimiser.rate", "1e-12"]  # as good as untrained


def cohort(work: Path, name: str, settings: CineSettings) -> Path:
    """A prepared phantom."""
    if not (work / f"{name}-cohort").exists():
        if not (work / name).exists():
            simulate_cine(work / name, settings)
        prepare_clips(work / f"{name}-cohort", source=work / name, layout="bids", name=f"phantom {name}")
    return work / f"{name}-cohort"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--recipe", default="cine_contrastive")
    parser.add_argument("--subjects", type=int, default=60, help="of the probed cohorts")
    parser.add_argument("--flags", default="", help="of pretraining")
    options = parser.parse_args()
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    source = cohort(work, "train", CineSettings(subjects=40, seed=0))
    targets = {
        "ef": cohort(work, "groups", CineSettings(subjects=options.subjects, seed=1)),
        "hypokinesia": cohort(work, "regions", CineSettings(subjects=options.subjects, seed=2, study="hypokinesia")),
    }
    for name, flags in (("pretrained", shlex.split(options.flags)), ("random", FROZEN)):
        run = work / f"{options.recipe}-{name}"
        if not (run / "summary.json").is_file():
            words = [
                sys.executable,
                "-m",
                "ssl4neuro",
                "pretrain",
                options.recipe,
                "--data",
                str(source),
                "--out",
                str(run),
                *flags,
            ]
            subprocess.run(words, check=True)
        for target, data in targets.items():
            out = work / f"{run.name}-{target}"
            if not out.exists():
                embed(run, data, out, which="last")
            result = probe(out, target=target, out=None, unit="subject", column="all", permutations=0)
            for row in result.rows:
                if name == "pretrained" or not row.baseline:
                    told = f"{row.metric} {row.value:.3f} ({row.ci_low:.3f}-{row.ci_high:.3f})"
                    print(f"{target:12} {'' if row.baseline else name:11} {row.name:36} {told}", flush=True)


if __name__ == "__main__":
    main()
