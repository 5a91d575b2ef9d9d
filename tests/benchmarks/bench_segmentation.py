"""The heads for segmentation on the phantom, on ACDC and on EMIDEC, with the commands that a user would type.

    python tests/benchmarks/bench_segmentation.py phantom|acdc|emidec --work DIR [--data DATA] [--steps N] [--subjects 200]

phantom: hypokinesia without contrast; the full model against U-Nets, an empty mask, and itself without its parts.
acdc: encoders pretrained inside each fold against encoders from scratch, on 2, 5, 10 and all training patients.
emidec: still images, five folds, beside a U-Net.
Everything is resumed when the command is given again. About an hour each on one core.
"""

import argparse
from pathlib import Path

from ssl4neuro.cli import main as ssl4neuro

ACDC_PRETRAIN = [
    *("--crossfit", "5", "--split.stratify", "group", "--clip.size", "96", "--clip.extent", "1.0", "--clip.frames", "6"),
    *("--sampling.batch_size", "4", "--loop.epochs", "40"),
]


def run(out: Path, *words: str) -> None:
    """One command, continued where it has been run before."""
    started = ["--resume"] if out.exists() else []
    if ssl4neuro([*words, "--out", str(out), *started]) != 0:
        raise SystemExit(f"failed: ssl4neuro {' '.join(words)}")


def prepared(out: Path, source: Path, layout: str) -> str:
    if ssl4neuro(["prepare", "clips", str(out), "--source", str(source), "--layout", layout, "--name", out.name]) != 0:
        raise SystemExit(f"failed: prepare {source}")
    return str(out)


def phantom(out: Path, steps: list[str], subjects: int) -> None:
    source = out / "phantom-files"
    if not source.exists():
        words = ["--subjects", str(subjects), "--study", "hypokinesia", "--mask", "hypokinesia", "--seed", "12"]
        ssl4neuro(["simulate", "cine", str(source), *words])
    cohort = prepared(out / "phantom", source, "bids")
    run(out / "phantom-ablation", "ablate", "mvo", "--data", cohort, *steps, "--only", "baselines,controls,components")


def acdc(out: Path, steps: list[str], data: Path) -> None:
    cohort = prepared(out / "acdc", data / "acdc-cine25", "acdc")
    encoders = out / "acdc-encoders"
    run(encoders, "pretrain", "cine_contrastive", "--data", cohort, *ACDC_PRETRAIN)
    few = ["--patients", "2,5,10", "--loop.steps", "240"]
    for name, init in (("pretrained", ["--init", str(encoders), "--folds", "0"]), ("scratch", ["--split.stratify", "group"])):
        run(out / f"acdc-{name}", "finetune", "cine_segmentation", "--data", cohort, *init, *steps)
        run(out / f"acdc-{name}-few", "finetune", "cine_segmentation", "--data", cohort, *init, *few)
    ssl4neuro(["compare", str(out / "acdc-pretrained"), str(out / "acdc-scratch")])


def emidec(out: Path, steps: list[str], data: Path) -> None:
    cohort = prepared(out / "emidec", data / "emidec30", "emidec")
    run(out / "emidec-ablation", "ablate", "lge_segmentation", "--data", cohort, *steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=("phantom", "acdc", "emidec"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data")
    parser.add_argument("--steps", type=int, default=None, help="weight updates; the recipe's by default")
    parser.add_argument("--subjects", type=int, default=200, help="of the phantom")
    args = parser.parse_args()
    steps = [] if args.steps is None else ["--loop.steps", str(args.steps)]
    if args.study == "phantom":
        phantom(args.work, steps, args.subjects)
    else:
        {"acdc": acdc, "emidec": emidec}[args.study](args.work, steps, args.data)


if __name__ == "__main__":
    main()
